"""One workload, measured: the yardstick, the warm-up, the load with its CPU, and the yardstick again."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import aiohttp
import orjson

from tests.bench import accounting, figures, yardstick
from tests.bench.children import BenchError, child
from tests.bench.figures import Spread, Tally, Turn, Work
from tests.bench.generator import Order, Seen
from tests.bench.product import Product
from tests.bench.workloads import Workload

# After a reply its turn is still folded and acknowledged, which is CPU of that turn: wait for it on both sides.
SETTLE_SECONDS = 0.5
EXCLUDED = ("simulator", "generator")


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds. overhead is the turn less the slower of its model calls, where all that is known and was waited
    for; stages are what the turns' own records say."""

    turn: Spread | None
    overhead: Spread | None
    model: Spread | None
    first_delta: Spread | None
    start_interview: Spread | None
    stages: Mapping[str, Spread | None]


@dataclass(frozen=True, slots=True)
class Cpu:
    """Milliseconds of CPU for each turn, by process; `product` is their sum without the simulator and the generator.

    yardsticks: `product` as a multiple of the yardstick's mean.
    busy_cores: of the machine's, by everything here, on average; other_cores by everybody else, the host included.
    """

    by_process: Mapping[str, float]
    product: float
    yardstick_before: float
    yardstick_after: float
    yardsticks: float
    busy_cores: float
    other_cores: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one workload showed.

    errors: turns that were not answered, by status and reason. degraded: turns by degradation.
    not_joined: turns without an overhead, by why. complaints: log lines above `info`.
    work: RPCs and statements for each turn, the starts of interviews among them.
    """

    workload: Workload
    answered: int
    interviews: int
    seconds: float
    turns_per_second: float
    errors: Mapping[str, int]
    behind: int
    degraded: Mapping[str, int]
    not_joined: Mapping[str, int]
    complaints: Mapping[str, int]
    ms: Times
    cpu_ms: Cpu
    work: Mapping[str, Work]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What everybody had used and done at one moment."""

    machine_ms: float
    cpu_ms: Mapping[str, float]
    work: Mapping[str, Tally]


async def measure(product: Product, http: aiohttp.ClientSession, workload: Workload) -> Measurement:
    """Put the load on the product.

    Raises:
        BenchError: a process ended, or not one turn was answered.
    """
    yardstick_before = await yardstick.measured_ms()
    await product.set_model(workload)
    complaints_before = product.complaints()
    seen, before, after = await _put(product, http, workload)
    if not seen.turns:
        raise BenchError(f"not one turn was answered: {dict(seen.errors)}, {dict(product.complaints())}")
    waited = figures.overhead(seen.turns, await product.calls())
    yardstick_after = await yardstick.measured_ms()
    answered = len(seen.turns)
    return Measurement(
        workload=workload,
        answered=answered,
        interviews=len(seen.starts_ms),
        seconds=seen.seconds,
        turns_per_second=answered / seen.seconds,
        errors=seen.errors,
        behind=seen.behind,
        degraded=Counter(mark for turn in seen.turns for mark in turn.degraded),
        not_joined={"degraded": waited.degraded, "late": waited.late, "unknown": waited.unjoined},
        complaints=product.complaints() - complaints_before,
        ms=_times(seen, waited),
        cpu_ms=_cpu(seen, before, after, yardstick_before, yardstick_after),
        work=figures.work(before.work, after.work, answered),
    )


async def _put(product: Product, http: aiohttp.ClientSession, workload: Workload) -> tuple[Seen, _Reading, _Reading]:
    """Warm up, then run the load between two readings."""
    async with child("tests.bench.generator") as generator:
        order = Order(product.url, product.tokens(workload.sessions), workload)
        await generator.tell(orjson.dumps(order))
        await generator.hear(b"warm")
        await asyncio.sleep(SETTLE_SECONDS)
        await product.forget_calls()
        pids = {**product.pids, "generator": generator.pid}
        work = await accounting.work_done(http, product.metrics_urls)
        before = _Reading(accounting.machine_ms(), accounting.cpu_ms(pids), work)
        await generator.tell(b"go")
        await generator.hear(b"done")
        await asyncio.sleep(SETTLE_SECONDS)
        machine_ms, cpu_ms = accounting.machine_ms(), accounting.cpu_ms(pids)
        if {**product.pids, "generator": generator.pid} != pids:
            raise BenchError("a process was started again during the measurement")
        after = _Reading(machine_ms, cpu_ms, await accounting.work_done(http, product.metrics_urls))
        return Seen.read(await generator.rest()), before, after


def as_json(measurements: Iterable[Measurement], machine: Mapping[str, str]) -> bytes:
    """The document of `--json`."""
    return orjson.dumps(
        {"machine": machine, "measurements": list(measurements)},
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )


def _cpu(seen: Seen, before: _Reading, after: _Reading, yardstick_before: float, yardstick_after: float) -> Cpu:
    answered = len(seen.turns)
    by_process = figures.per_turn(before.cpu_ms, after.cpu_ms, answered)
    mine = sum(cpu_ms for name, cpu_ms in by_process.items() if name not in EXCLUDED)
    busy_cores = sum(by_process.values()) * answered / 1000 / seen.seconds
    return Cpu(
        by_process=by_process,
        product=mine,
        yardstick_before=yardstick_before,
        yardstick_after=yardstick_after,
        yardsticks=figures.in_yardsticks(mine, yardstick_before, yardstick_after),
        busy_cores=busy_cores,
        other_cores=max(0.0, (after.machine_ms - before.machine_ms) / 1000 / seen.seconds - busy_cores),
    )


def _times(seen: Seen, waited: figures.Overhead) -> Times:
    return Times(
        turn=Spread.of(turn.turn_ms for turn in seen.turns),
        overhead=Spread.of(waited.values_ms),
        model=Spread.of(waited.model_ms),
        first_delta=Spread.of(turn.first_delta_ms for turn in seen.turns if turn.first_delta_ms is not None),
        start_interview=Spread.of(seen.starts_ms),
        stages=_stages(seen.turns),
    )


def _stages(turns: Iterable[Turn]) -> dict[str, Spread | None]:
    took: dict[str, list[float]] = {}
    for turn in turns:
        for stage, stage_ms in turn.stages_ms.items():
            took.setdefault(stage, []).append(stage_ms)
    return {stage: Spread.of(values) for stage, values in sorted(took.items())}
