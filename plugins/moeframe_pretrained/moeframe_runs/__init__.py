"""Runs and exported folders of moeframe itself as experts."""
