"""A promise with a number in it, and what was measured. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, in `unit`, and the most that it may be."""

    what: str
    measured: float
    bound: float
    unit: str

    @property
    def kept(self) -> bool:
        return self.measured <= self.bound

    def __str__(self) -> str:
        verdict = "ok" if self.kept else "BROKEN"
        return f"{self.what}: {self.measured:.3g} {self.unit} (at most {self.bound:g}) {verdict}"


def worst(what: str, seconds: Iterable[float | None], bound: float) -> Figure:
    """The longest of some times in seconds; None is one that never ended."""
    return Figure(what, max((float("inf") if it is None else it for it in seconds), default=float("inf")), bound, "s")
