"""The gateway as its own process: it sweeps from its start to its end, whoever answers."""

import asyncio
import signal
from asyncio.subprocess import Process
from typing import Any

import aiohttp

from tests.rpc.bff_world import PUBLIC_PEM
from tests.rpc.processes import line_of, process

NOBODY = "127.0.0.1:1"
ALONE = {
    "COLLOQUY_GATEWAY_LISTEN": "127.0.0.1:0",
    "COLLOQUY_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
    "COLLOQUY_JWT_PUBLIC_KEY": PUBLIC_PEM,
    **{f"COLLOQUY_{context}_TARGET": NOBODY for context in ("SESSION", "HISTORY", "ASSESSMENT", "LLM")},
}


async def held_up(gateway: Process) -> dict[str, Any]:
    """What it says of the next round that found nobody. One in which the machine stood still may say only that it took
    too long."""
    while (line := await line_of(gateway, "sweep_held_up"))["reason"] == "DEADLINE_EXCEEDED":
        pass
    return line


async def test_it_goes_on_sweeping_without_anybody_to_ask_and_leaves_when_told_to() -> None:
    async with process("services.gateway", ALONE) as gateway, aiohttp.ClientSession() as http:
        serving = await line_of(gateway, "serving")
        rounds = [await held_up(gateway) for _ in range(3)]
        async with http.get(f"http://127.0.0.1:{serving['metrics_port']}/metrics") as response:
            metrics = (await response.text()).splitlines()

        gateway.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(gateway.wait(), 10)

    assert {line["reason"] for line in rounds} == {"UNAVAILABLE"}
    assert "unsettled" in {line["duty"] for line in rounds}
    assert "colloquy_sweep_last_success_timestamp_seconds 0.0" in metrics
    assert code == 0


async def test_all_that_keeps_it_from_starting_is_said_at_once() -> None:
    wrong = {
        "COLLOQUY_JWT_PUBLIC_KEY": "junk",
        "COLLOQUY_TURN_BUDGET_MS": "x",
        "COLLOQUY_HISTORY_TARGET": "http://history",
        "COLLOQUY_FAILPOINTS": "bad",
    }
    async with process("services.gateway", {**ALONE, **wrong}) as gateway:
        _, errors = await asyncio.wait_for(gateway.communicate(), 20)

    assert gateway.returncode == 1
    problems = errors.decode().splitlines()
    assert {problem.split()[1] for problem in problems} == wrong.keys()
    assert len(problems) == len(wrong)
    assert "junk" not in errors.decode()
