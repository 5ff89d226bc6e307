"""What load to put on the product: how many sessions, how fast each goes on, and how slow the model is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """Sessions that each go strictly one turn after another.

    sessions: how many at the same time, each with an owner and a token of its own.
    turns: measured ones of each session; an interview that is over is followed by a new one.
    warmup: turns of each session before that, which count for nothing.
    pace_seconds: from the start of one turn to the start of the next; 0 is a closed loop, the next at once.
    model_ms, model_sigma: the simulator's latency, lognormal: its median and the deviation of its logarithm.
    streamed: ask for server-sent events instead of one JSON reply.
    """

    name: str
    sessions: int = 50
    turns: int = 20
    warmup: int = 3
    pace_seconds: float = 0.0
    model_ms: float = 300.0
    model_sigma: float = 0.3
    streamed: bool = False

    def described(self) -> str:
        """One line for a reader."""
        pace = f"one turn per {self.pace_seconds:g} s each" if self.pace_seconds else "closed loop"
        how = "streamed" if self.streamed else "unary"
        return (
            f"{self.sessions} sessions × {self.turns} turns, {pace}, {how}, model at {self.model_ms:g} ms "
            f"(sigma {self.model_sigma:g}), {self.warmup} turns of warm-up each"
        )


# At saturation the CPU is what limits, so that CPU per turn and turns per second say the same.
SATURATE = Workload("saturate", turns=40, warmup=8, model_ms=20)
PACED = Workload("paced", turns=20, pace_seconds=3.0)
QUICK = (
    Workload("saturate (quick)", turns=12, warmup=4, model_ms=20),
    Workload("paced (quick)", turns=5, warmup=1, pace_seconds=3.0),
)
