"""Plugins: the hooks they implement, how they are found, and the registry of their components."""
