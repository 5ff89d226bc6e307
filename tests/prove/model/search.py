"""Breadth-first search of all states that a model can reach.

The first state found to be broken is one of those nearest to the beginning, so its path is a shortest counterexample.
"""

from array import array
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from struct import Struct
from time import perf_counter
from typing import Generic, Protocol, TypeVar

State = TypeVar("State", bound=tuple[Hashable, ...])


class Model(Protocol[State]):
    """What is searched."""

    def initial(self) -> State:
        """The only state to begin with, canonical."""
        ...

    def steps(self, state: State) -> Iterable[tuple[str, State]]:
        """What may happen next, and the state after it, which need not be canonical."""
        ...

    def canonical(self, state: State) -> State:
        """The one state that stands for all that have the same future."""
        ...

    def broken(self, state: State) -> str | None:
        """Which invariant does not hold in a canonical state."""
        ...


@dataclass(frozen=True, slots=True)
class Searched:
    """What was searched; `depth` is the longest of the shortest paths, `whole` whether nothing was left out."""

    states: int
    steps: int
    depth: int
    seconds: float
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Counterexample(Generic[State]):
    """The shortest way to a state in which an invariant does not hold."""

    broken: str
    path: tuple[tuple[str, State], ...]
    searched: Searched

    def __str__(self) -> str:
        return "\n".join([*(f"{number:4}  {label}" for number, (label, _) in enumerate(self.path, 1)), self.broken])


def search(model: Model[State], max_states: int | None = None) -> Searched | Counterexample[State]:
    """Visit every state, until one is broken."""
    started = perf_counter()
    initial = model.initial()
    index: _Index[State] = _Index(type(initial), len(initial))
    seen = {index.pack(initial)}
    order, parents = [index.pack(initial)], array("I", [0])
    number, steps, layer_ends, depth = 0, 0, 1, 0
    while number < len(order):
        if number == layer_ends:
            layer_ends, depth = len(order), depth + 1
        state = index.unpack(order[number])
        if broken := model.broken(state):
            searched = Searched(number + 1, steps, depth, perf_counter() - started)
            return Counterexample(broken, _path(model, index, order, parents, number), searched)
        if max_states is not None and len(order) >= max_states:
            return Searched(number, steps, depth, perf_counter() - started, whole=False)
        for _, after in model.steps(state):
            steps += 1
            packed = index.pack(model.canonical(after))
            if packed not in seen:
                seen.add(packed)
                order.append(packed)
                parents.append(number)
        number += 1
    return Searched(number, steps, depth, perf_counter() - started)


def _path(
    model: Model[State], index: "_Index[State]", order: list[bytes], parents: "array[int]", number: int
) -> tuple[tuple[str, State], ...]:
    """The way to a state, walked again in the model's own numbers, which a canonical state has lost."""
    waypoints = []
    while number:
        waypoints.append(order[number])
        number = parents[number]
    state, path = model.initial(), []
    for waypoint in reversed(waypoints):
        label, state = next(step for step in model.steps(state) if index.pack(model.canonical(step[1])) == waypoint)
        path.append((label, state))
    return tuple(path)


class _Index(Generic[State]):
    """States in a few bytes each: their parts are kept once, and a state says which parts it has."""

    def __init__(self, make: Callable[..., State], width: int) -> None:
        self._make = make
        self._numbers: list[dict[Hashable, int]] = [{} for _ in range(width)]
        self._parts: list[list[Hashable]] = [[] for _ in range(width)]
        self._format = Struct(f"{width}I")

    def pack(self, state: State) -> bytes:
        numbers = []
        for part, known, parts in zip(state, self._numbers, self._parts, strict=True):
            number = known.get(part)
            if number is None:
                number = known[part] = len(parts)
                parts.append(part)
            numbers.append(number)
        return self._format.pack(*numbers)

    def unpack(self, packed: bytes) -> State:
        return self._make(*[parts[it] for it, parts in zip(self._format.unpack(packed), self._parts, strict=True)])
