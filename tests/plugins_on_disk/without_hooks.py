"""Forgot @hookimpl."""


def moeframe_gates():
    return []
