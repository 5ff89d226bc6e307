"""End and Erase while turns run, are repaired and taken over: sealed first, and nothing commits afterwards (I8)."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Sequence

import pytest

from colloquy.gateway.v1 import gateway_pb2
from colloquy.history.v1 import history_pb2
from libs.runtime.errors import ColloquyError, NotFound, SessionClosed, TurnInProgress
from tests.rpc.bff_world import until
from tests.rpc.gateway_world import ANSWER, ANYBODY, Gateway, World, message, world

__all__ = ["world"]

ADA = history_pb2.Viewer(owner_id="ada")
EVE = history_pb2.Viewer(owner_id="eve")


async def under_way(
    world: World, gateway: Gateway, session_id: str, **changes: str
) -> asyncio.Task[gateway_pb2.SubmitTurnResponse]:
    """A message whose reply a model holds back."""
    purpose = "chat" if world.stream(session_id)["kind"] == "chat" else "question"
    world.models.held[purpose].clear()
    before = len(world.models.made)
    asking = asyncio.create_task(gateway.say(session_id, **changes))
    await until(lambda: any(made[1] == purpose for made in world.models.made[before:]))
    return asking


def let_go(world: World) -> None:
    """The models answer what they held back."""
    for event in world.models.held.values():
        event.set()


async def outcome(asking: Awaitable[object]) -> object:
    """What a caller hears: the response, or the type of the error."""
    try:
        return await asking
    except ColloquyError as error:
        return type(error)


async def sooner_or_later(work: Awaitable[object]) -> object:
    """Do something at some moment of a turn's."""
    await asyncio.sleep(random.uniform(0, 0.08))
    return await outcome(work)


async def settled(world: World, gateways: Sequence[Gateway], session_ids: Sequence[str]) -> None:
    """Nothing is left to be done, after the sweep has come by twice: for what was left, and for what it did itself."""
    for _ in range(2):
        for gateway in gateways:
            await gateway.idle()
        for session_id in session_ids:
            world.age(session_id)
        await gateways[0].unsettled.round()
    assert all(world.is_quiet(session_id) for session_id in session_ids)


async def test_a_turn_that_runs_into_the_end_has_failed_for_whoever_waits_and_for_good(world: World) -> None:
    gateway, replica = world.gateway(), world.gateway()
    session_id, before, running = await gateway.start(), str(uuid.uuid4()), str(uuid.uuid4())
    answered = await gateway.say(session_id, request_id=before)
    asking = await under_way(world, gateway, session_id, request_id=running)
    following = asyncio.create_task(replica.say(session_id, request_id=running))

    ended = await replica.reading.end(session_id, ANYBODY)
    followed = await outcome(following)
    let_go(world)

    assert await outcome(asking) is SessionClosed
    assert followed is SessionClosed
    assert await outcome(gateway.say(session_id, request_id=running)) is SessionClosed
    assert await outcome(gateway.say(session_id)) is SessionClosed
    replayed = await gateway.say(session_id, request_id=before)
    assert (replayed.turn, replayed.replayed) == (answered.turn, True)
    assert (ended.status, ended.turns) == (gateway_pb2.SESSION_STATUS_COMPLETED, 2)
    await settled(world, [gateway, replica], [session_id])
    (entry,) = world.rows("SELECT status, applied_seq FROM session.sessions WHERE session_id = %s", session_id)
    assert entry == {"status": "completed", "applied_seq": 2}


async def test_an_answer_that_ran_into_the_end_is_not_judged_again(world: World) -> None:
    gateway = world.gateway()
    session_id = await gateway.start()
    world.models.failing.add("judge")
    asking = await under_way(world, gateway, session_id)

    await gateway.reading.end(session_id, ANYBODY)
    let_go(world)
    await outcome(asking)
    await gateway.idle()

    assert sum(purpose == "judge" for _, purpose in world.models.made) == 1


async def test_ended_again_and_at_once_a_session_has_ended_once(world: World) -> None:
    gateways = [world.gateway(), world.gateway()]
    session_id = await gateways[0].start()
    await gateways[0].say(session_id)

    ended = await asyncio.gather(*(gateway.reading.end(session_id, ANYBODY) for gateway in gateways * 4))
    again = await gateways[0].reading.end(session_id, ADA)

    assert {view.SerializeToString(deterministic=True) for view in ended} == {
        again.SerializeToString(deterministic=True)
    }
    await settled(world, gateways, [session_id])


async def test_whatever_meets_the_end_is_in_the_ledger_before_it_or_not_at_all(world: World) -> None:
    gateways = [world.gateway(), world.gateway()]
    sessions = await asyncio.gather(*(gateways[0].start() for _ in range(12)))
    left = {session_id: (await world.left_behind(gateways[0], session_id)) for session_id in sessions[:6]}

    async def meet(session_id: str) -> object:
        """A repair of what was left behind, or else a message, meets the end, sooner or later."""
        said, ended = await asyncio.gather(
            outcome(gateways[1].say(session_id)),
            sooner_or_later(gateways[0].reading.end(session_id, ANYBODY)),
        )
        assert isinstance(ended, gateway_pb2.Session)
        return said

    heard = dict(zip(sessions, await asyncio.gather(*map(meet, sessions)), strict=True))

    await settled(world, gateways, sessions)
    for session_id in sessions:
        head = world.stream(session_id)
        turns = world.rows(
            "SELECT turn_id::text, state, reason, seq FROM history.turns WHERE session_id = %s", session_id
        )
        assert head["sealed"]
        assert {turn["state"] for turn in turns} <= {"COMMITTED", "FAILED"}
        assert {turn["reason"] for turn in turns if turn["state"] == "FAILED"} <= {"SESSION_CLOSED"}
        assert sorted(turn["seq"] for turn in turns if turn["seq"]) == list(range(1, head["last_seq"] + 1))
        if isinstance(reply := heard[session_id], gateway_pb2.SubmitTurnResponse):
            assert reply.turn.turn_id in {turn["turn_id"] for turn in turns if turn["seq"]}
        else:
            assert reply in (SessionClosed, TurnInProgress)
        if session_id in left:
            assert left[session_id].turn_id in {turn["turn_id"] for turn in turns}


@pytest.mark.parametrize("kind", ["interview", "chat"])
async def test_a_turn_that_runs_into_an_erasure_is_not_found_for_whoever_waits(world: World, kind: str) -> None:
    gateway, replica, request_id = world.gateway(), world.gateway(), str(uuid.uuid4())
    session_id, told = await gateway.start(kind), list[str | None]()
    asking = await under_way(world, gateway, session_id, request_id=request_id)
    following = asyncio.create_task(replica.say(session_id, request_id=request_id))
    streaming = asyncio.create_task(listen(replica, session_id, request_id, told))
    await until(lambda: told == ["accepted"])

    await replica.erasing.erase(session_id, ANYBODY)
    let_go(world)

    assert [await outcome(it) for it in (asking, following, streaming)] == [NotFound] * 3
    assert told == ["accepted"]


async def listen(gateway: Gateway, session_id: str, request_id: str, told: list[str | None]) -> None:
    """Note the events of a message's stream."""
    async for event in gateway.turns.stream(message(session_id, request_id=request_id)):
        told += [event.WhichOneof("event")]


async def test_an_erased_session_is_gone_and_can_be_erased_again(world: World) -> None:
    gateway, key = world.gateway(), uuid.uuid4()
    session_id = await gateway.start("chat", request_id=key)
    await gateway.say(session_id, "My name is Ada Lovelace.")

    for _ in range(2):
        await gateway.erasing.erase(session_id, ADA)

    for gone in (
        gateway.reading.session(session_id, ADA, ADA),
        gateway.reading.messages(session_id, ADA, 10, ""),
        gateway.reading.end(session_id, ADA),
        gateway.say(session_id),
        gateway.start("chat", request_id=key),
    ):
        with pytest.raises(NotFound):
            await gone
    assert not (await gateway.reading.sessions(ADA, ADA, 10, "")).sessions
    assert world.is_quiet(session_id)


async def test_what_is_not_yours_or_is_no_chat_is_not_erased(world: World) -> None:
    gateway = world.gateway()
    chat, interview = await gateway.start("chat"), await gateway.start()
    a_chat_of_adas = history_pb2.Viewer(owner_id="ada", kind=history_pb2.KIND_CHAT)

    for session_id, viewer in ((chat, EVE), (interview, a_chat_of_adas), (str(uuid.uuid4()), ANYBODY)):
        with pytest.raises(NotFound):
            await gateway.erasing.erase(session_id, viewer)

    assert not world.rows("SELECT 1 FROM history.streams WHERE erased")


async def test_whatever_meets_an_erasure_leaves_nothing_that_was_said(world: World) -> None:
    gateways = [world.gateway(), world.gateway()]
    kinds = ["interview", "chat"] * 6
    sessions = await asyncio.gather(*(gateways[0].start(kind, candidate_name="Ada") for kind in kinds))
    for session_id in sessions[:4]:
        await world.left_behind(gateways[0], session_id)

    async def meet(session_id: str) -> None:
        *_, erased = await asyncio.gather(
            outcome(gateways[1].say(session_id)),
            sooner_or_later(gateways[0].unsettled.round()),
            sooner_or_later(gateways[0].reading.end(session_id, ANYBODY)),
            sooner_or_later(gateways[1].erasing.erase(session_id, ANYBODY)),
        )
        assert erased is None

    await asyncio.gather(*map(meet, sessions))

    await settled(world, gateways, sessions)
    tables = {
        "history.turns": "user_text, reply_text, record, fingerprint",
        "history.streams": "personal_facts, fingerprint, salt",
    }
    for table, columns in tables.items():
        rows = world.rows(f"SELECT {columns} FROM {table} WHERE session_id = ANY(%s::uuid[])", sessions)
        assert not [row for row in rows if any(row.values())]
    for table in ("session.sessions", "assessment.interviews", "assessment.answers"):
        rows = world.rows(f"SELECT t::text AS row FROM {table} t WHERE session_id = ANY(%s::uuid[])", sessions)
        assert not [row for row in rows if "Ada" in row["row"] or ANSWER[:20] in row["row"]]
    assert set(sessions) <= world.models.erased
