"""What can go wrong, by kind and target. Names only: how each is done is in `injection`, when is in `plan`."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from libs.failpoints.catalogue import Point
from tests.chaos.topology import LINKS, PROCESSES, Replica

GATEWAYS = tuple(replica for replica in PROCESSES if replica.service == "gateway")


class Kind(StrEnum):
    """A way to fail."""

    KILL = "kill"
    """SIGKILL; the supervisor starts the process again."""
    EXIT = "exit"
    """A failpoint ends its process at once, in the middle of a turn, an End or an Erase."""
    PAUSE = "pause"
    """SIGSTOP for longer than a lease: the owner of turns wakes up when others have taken them over."""
    POSTGRES_KILL = "postgres kill"
    """SIGKILL of the postmaster."""
    POSTGRES_CRASH = "postgres crash"
    """SIGKILL of one backend, after which the postmaster restarts all of them and recovers."""
    POSTGRES_FREEZE = "postgres freeze"
    """SIGSTOP of every process of the server."""
    POSTGRES_RESTART = "postgres restart"
    """A fast shutdown, as an operator orders it."""
    PROVIDER = "provider"
    """The model server fails every call."""
    DELAY = "delay"
    """A network link delivers late."""
    RESET = "reset"
    """A link resets its connections, and new ones for a moment."""
    HALF_OPEN = "half-open"
    """A link delivers nothing on the connections that there are, and closes none of them."""
    END = "end"
    """A session is ended by an operator while a turn is under way."""
    ERASE = "erase"
    """A session is erased by an operator while a turn is under way."""


POSTGRES = (Kind.POSTGRES_KILL, Kind.POSTGRES_CRASH, Kind.POSTGRES_FREEZE, Kind.POSTGRES_RESTART)
LINK = (Kind.DELAY, Kind.RESET, Kind.HALF_OPEN)
PROVIDER_FAULTS = ("hang", "500", "cut_stream")  # as the simulator names them
ENDS, ERASES = 6, 6
"""How many sessions are ended and erased for each time that every other fault happens once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way in which a thing fails; `target` is a process, a link or a provider's fault, `point` a failpoint of it."""

    kind: Kind
    target: str = ""
    point: str = ""

    @property
    def name(self) -> str:
        """What the report calls it."""
        return " ".join(part for part in (self.kind.value, self.target, self.point) if part)


def deck(points: Iterable[Point]) -> list[Fault]:
    """Every fault there is, in a fixed order; Ends and Erases several times. Processes exit at these failpoints."""
    return [
        *(Fault(Kind.KILL, replica.name) for replica in PROCESSES),
        *(Fault(Kind.EXIT, replica.name, point.name) for point in points for replica in _alternating(point)),
        *(Fault(Kind.PAUSE, replica.name) for replica in GATEWAYS),
        *map(Fault, POSTGRES),
        *(Fault(Kind.PROVIDER, fault) for fault in PROVIDER_FAULTS),
        *(Fault(kind, link.name) for kind in LINK for link in LINKS),
        *[Fault(Kind.END)] * ENDS,
        *[Fault(Kind.ERASE)] * ERASES,
    ]


def _alternating(point: Point) -> Iterable[Replica]:
    """The replica that exits at a point: one of them is enough, and points are spread over the replicas."""
    replicas = [replica for replica in PROCESSES if replica.service == point.service]
    spread = sum(point.name.encode()) % len(replicas) if replicas else 0
    return replicas[spread : spread + 1]
