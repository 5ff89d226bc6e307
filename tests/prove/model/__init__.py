"""The turn protocol as a model that can be searched: its state, who acts on it, and what must hold in every state.

Names are those of the protocol. Numbers that it only compares (fences, revs, claims) are numbers here too.
"""
