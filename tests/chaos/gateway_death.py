"""A gateway killed in mid-turn: when do those who ask again have their answer, and when those who do not?"""

import asyncio
import time
from collections.abc import Sequence

from tests.chaos import ledger, processes, suite
from tests.chaos.client import Client
from tests.chaos.figures import Figure, worst
from tests.chaos.journal import What
from tests.chaos.load import Load
from tests.chaos.manners import FAITHFUL
from tests.chaos.polling import until_told
from tests.chaos.sending import Message
from tests.chaos.suite import Ground, Outcome

TIMES = 5
MESSAGES = 20
MID_TURN_SECONDS = 0.06  # the model takes about 100 ms
ASKED_AGAIN_SECONDS = 4.0 + 2.0  # an interview's lease, and two seconds
SWEPT_SECONDS = 15.0


async def measure(ground: Ground) -> tuple[list[Figure], Outcome]:
    """Kill the gateways by turns, with twenty messages under way each time."""
    began, load = time.monotonic(), Load(0)
    asked: list[float | None] = []
    swept: list[float | None] = []
    for number in range(TIMES):
        clients = [ground.client(MESSAGES * number + it, load, FAITHFUL) for it in range(MESSAGES)]
        owner = f"gateway-{1 + number % 2}"
        asked += await _asked_again(ground, owner, clients)
        swept.append(await _left_alone(ground, owner, clients))
    outcome = await suite.judged(ground, [], time.monotonic() - began)
    return [
        worst(f"until the same id has its answer ({len(asked)} messages)", asked, ASKED_AGAIN_SECONDS),
        worst(f"until the sweep has ended what nobody asks for ({len(swept)} kills)", swept, SWEPT_SECONDS),
    ], outcome


async def _asked_again(ground: Ground, owner: str, clients: Sequence[Client]) -> list[float | None]:
    """Seconds from before the kill to the answers of those who go on asking with the same id."""
    messages = [await _said(client) for client in clients]
    async with asyncio.TaskGroup() as group:
        asking = [
            group.create_task(client.sender.seconds_until_answered(message))
            for client, message in zip(clients, messages, strict=True)
        ]
        await asyncio.sleep(MID_TURN_SECONDS)
        await _kill(ground, owner)
    return [it.result() for it in asking]


async def _left_alone(ground: Ground, owner: str, clients: Sequence[Client]) -> float | None:
    """Seconds from the kill until no turn is under way, where all clients have gone for good; None: too many."""
    messages = [await _said(client) for client in clients]
    async with asyncio.TaskGroup() as group:
        for client, message in zip(clients, messages, strict=True):
            group.create_task(client.sender.send_and_leave(message, MID_TURN_SECONDS))
    await _kill(ground, owner)
    began = time.monotonic()
    for client, message in zip(clients, messages, strict=True):
        await client.sender.note(What.LEFT, message)
    try:
        async with asyncio.timeout(2 * SWEPT_SECONDS):
            await until_told(lambda: _none_running(ground))
    except TimeoutError:
        return None
    return time.monotonic() - began


async def _said(client: Client) -> Message:
    """A message of a new interview, ready to be sent."""
    return await client.written(await client.interview())


async def _kill(ground: Ground, name: str) -> None:
    process = await processes.running(ground.stack.processes[name])
    process.kill()
    await process.wait()


async def _none_running(ground: Ground) -> bool:
    held = await ledger.read(ground.stack.host.owner_dsn)
    return all(turn.state != "RUNNING" for turn in held.turns.values())
