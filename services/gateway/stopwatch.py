"""Where the time of one turn goes: one clock from the arrival of its message, and its stages."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from colloquy.gateway.v1 import gateway_pb2


class Stopwatch:
    """Milliseconds since the turn's message arrived, and what each stage took."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.stages: dict[str, float] = {}

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self._started) * 1000

    def left_ms(self, until_ms: float) -> float:
        """What is left until a point of the turn's time; negative once it has passed."""
        return until_ms - self.elapsed_ms()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time, also where it fails, as a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = (time.monotonic() - began) * 1000

    def timing(self, budget_ms: int) -> gateway_pb2.Timing:
        """The account so far."""
        return gateway_pb2.Timing(
            budget_ms=budget_ms,
            total_ms=round(self.elapsed_ms(), 1),
            stages=[
                gateway_pb2.Timing.Stage(name=name, duration_ms=round(took_ms, 1))
                for name, took_ms in sorted(self.stages.items())
            ],
        )
