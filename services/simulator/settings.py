"""How the simulator behaves: the latency and the faults of its calls, for all of them or for one purpose.

The JSON of `PUT /simulator/settings`, every part of it optional; what is absent is as it was on the command line:

    {"seed": 7,
     "latency": {"median_ms": 300, "sigma": 0.3},
     "faults": {"500": 0.05, "hang": 0.01},
     "purposes": {"judge": {"faults": {"hang": 1}}}}

Under `purposes` (`question`, `judge`, `chat`) stands what differs for that purpose. A PUT replaces the settings as a
whole (`{}` is back to the command line) and starts the sequence of draws anew.
"""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from services.simulator.chat_request import Purpose
from services.simulator.json_schema import Json


class SettingsError(ValueError):
    """The settings are not of the documented form."""


class Fault(StrEnum):
    """What can go wrong with a call."""

    RATE_LIMITED = "429"
    """429 with Retry-After and retry-after-ms of one second, at once."""
    SERVER_ERROR = "500"
    """500 where the reply would have been complete."""
    CONTEXT_LENGTH = "context_length_exceeded"
    """400 with that code, at once."""
    HANG = "hang"
    """Nothing is ever sent; ends when the caller goes away."""
    SLOW_STREAM = "slow_stream"
    """After the first piece, half a second from piece to piece; a reply that is not streamed takes as long."""
    CUT_STREAM = "cut_stream"
    """The connection is closed after half of the reply."""
    MALFORMED_JSON = "malformed_json"
    """200, but the body, or an event half-way through the stream, is not JSON."""
    TRUNCATED_OUTPUT = "truncated_output"
    """The model stops half-way, finish reason `length`: JSON output does not parse."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Lognormal, from the request to the last byte: half of the calls take at most `median_ms`; 0 means none at all.

    `sigma` is the standard deviation of the logarithm: at 0.3 one call in a hundred takes twice the median.
    """

    median_ms: float = 300.0
    sigma: float = 0.3

    def __post_init__(self) -> None:
        if not (0 <= self.median_ms <= 3_600_000 and 0 <= self.sigma <= 5):
            raise SettingsError("latency: 'median_ms' must lie within 0 and 3600000, 'sigma' within 0 and 5")

    def draw_ms(self, randomness: random.Random) -> float:
        """Return one latency in milliseconds."""
        deviation = randomness.gauss(0.0, self.sigma)
        return self.median_ms * math.exp(deviation)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The latency, and the probability of each fault; these exclude each other, so they sum up to 1 at most."""

    latency: Latency = field(default_factory=Latency)
    faults: Mapping[Fault, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # 1e-9: ten times 0.1 is more than 1 in floating point.
        if not all(0 <= share <= 1 for share in self.faults.values()) or sum(self.faults.values()) > 1 + 1e-9:
            raise SettingsError("faults: probabilities lie within 0 and 1, and so does their sum")

    def draw_fault(self, randomness: random.Random) -> Fault | None:
        """Return the fault that hits a call, if one does."""
        left = randomness.random()
        for fault, share in self.faults.items():
            left -= share
            if left < 0:
                return fault
        return None


@dataclass(frozen=True, slots=True)
class Settings:
    """The behaviour of all calls, and of those purposes that differ; the seed is that of the draws and of the texts."""

    seed: int = 0
    behaviour: Behaviour = field(default_factory=Behaviour)
    purposes: Mapping[Purpose, Behaviour] = field(default_factory=dict)

    def of(self, purpose: Purpose) -> Behaviour:
        """Return the behaviour of the calls of one purpose."""
        return self.purposes.get(purpose, self.behaviour)

    def as_json(self) -> Json:
        """Return the settings in the form that `changed` reads."""
        purposes: dict[str, Json] = {purpose.value: _as_json(differs) for purpose, differs in self.purposes.items()}
        return {"seed": self.seed, **_as_json(self.behaviour), "purposes": purposes}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one call; `latency_ms` is from the request to the last byte."""

    latency_ms: float
    fault: Fault | None


class Draws:
    """Draws the fate of call after call: for one seed the same sequence, in the order in which the calls arrive."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._randomness = random.Random(settings.seed)

    def next(self, purpose: Purpose) -> Fate:
        """Return the fate of the next call."""
        behaviour = self.settings.of(purpose)
        return Fate(behaviour.latency.draw_ms(self._randomness), behaviour.draw_fault(self._randomness))


def changed(settings: Settings, document: Json) -> Settings:
    """Return `settings` with what the document says.

    Raises:
        SettingsError: an unknown name, or a value of another type or out of range.
    """
    fields = _object(document, "settings", {"seed", "latency", "faults", "purposes"})
    seed = fields.get("seed", settings.seed)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise SettingsError("'seed' must be an integer")
    common = {name: fields[name] for name in ("latency", "faults") if name in fields}
    behaviour = _behaviour(settings.behaviour, common)
    differing = _object(fields.get("purposes", {}), "purposes", {purpose.value for purpose in Purpose})
    purposes = {Purpose(name): _behaviour(behaviour, value) for name, value in differing.items()}
    return Settings(seed, behaviour, purposes)


def parse_fault(text: str) -> tuple[Fault, float]:
    """Read `KIND=PROBABILITY`.

    Raises:
        SettingsError: the kind is unknown, or the probability not a number.
    """
    kind, _, share = text.partition("=")
    try:
        return _fault(kind), float(share)
    except ValueError as error:
        raise SettingsError(f"{text!r} is not of the form KIND=PROBABILITY, KIND one of {', '.join(Fault)}") from error


def _behaviour(base: Behaviour, document: Json) -> Behaviour:
    fields = _object(document, "a behaviour", {"latency", "faults"})
    latency, faults = base.latency, base.faults
    if "latency" in fields:
        latency = replace(latency, **_numbers(fields["latency"], "latency", {"median_ms", "sigma"}))
    if "faults" in fields:
        shares = _numbers(fields["faults"], "faults", set(Fault))
        faults = {Fault(kind): share for kind, share in shares.items()}
    return Behaviour(latency, faults)


def _as_json(behaviour: Behaviour) -> dict[str, Json]:
    latency = behaviour.latency
    return {
        "latency": {"median_ms": latency.median_ms, "sigma": latency.sigma},
        "faults": {fault.value: share for fault, share in behaviour.faults.items()},
    }


def _fault(kind: str) -> Fault:
    try:
        return Fault(kind)
    except ValueError as error:
        raise SettingsError(f"unknown fault {kind!r}, known are {', '.join(Fault)}") from error


def _object(document: Json, what: str, names: Iterable[str]) -> Mapping[str, Json]:
    if not isinstance(document, dict):
        raise SettingsError(f"{what} must be an object")
    if unknown := document.keys() - set(names):
        raise SettingsError(f"{what}: unknown {', '.join(sorted(unknown))}")
    return document


def _numbers(document: Json, what: str, names: Iterable[str]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in _object(document, what, names).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"{what}: '{name}' must be a number")
        numbers[name] = float(value)
    return numbers
