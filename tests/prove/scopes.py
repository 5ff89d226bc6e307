"""How large the worlds are in which the protocol is searched: small ones for every run of the suite, large ones for
`make prove`."""

from typing import Final

from tests.prove.model.rules import Scope

SMALL: Final = (
    Scope("A", flights=0, resets=True),
    Scope("AB", flights=0, half_made=False, faults=0, ends=False, erases=False),
    Scope("AA", interview=False, half_made=False, faults=0, ends=False, erases=False),
    Scope("A", interview=False, late=1),
)

LARGE: Final = (
    Scope("AB", interview=False, late=1, faults=1, half_made=False),
    Scope("AA"),
    Scope("A", sweeps=2),
    Scope("AB", faults=0, erases=False),
    Scope("AB", interview=False, max_turns=1, half_made=False),
    Scope("AAB", interview=False, faults=0, half_made=False, ends=False, erases=False),
    Scope("AB", flights=0, max_turns=2, half_made=False, resets=True),
    Scope("AAB", flights=0, half_made=False, faults=0, erases=False),
)
