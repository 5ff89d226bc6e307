"""The sweep over real contexts: what nobody comes back to is brought to its end, once, whoever sweeps."""

import asyncio
import uuid
from collections import Counter

import pytest
from structlog.testing import capture_logs

from colloquy.gateway.v1 import record_pb2
from colloquy.history.v1 import history_pb2
from colloquy.llm.v1 import llm_pb2
from libs.runtime.client import call
from libs.runtime.errors import NotFound, TurnInProgress, Unavailable
from services.gateway import records, telling, unsettled
from services.gateway.domain import Choice, Item
from tests.rpc.gateway_world import ANYBODY, CAP_MS, QUESTION, Gateway, World, message, world

__all__ = ["world"]

PREPARED = Choice(
    Item("data-row-estimates", "databases", "Which index?"), (Item("api-paging", "apis", "Why?"),), "Bye."
)


def a_question(
    owner: history_pb2.Owner, purpose: str = "question", choice: Choice | None = PREPARED
) -> llm_pb2.GenerateRequest:
    return llm_pb2.GenerateRequest(
        session_id=owner.head.session_id,
        turn_id=owner.turn_id,
        purpose=purpose,
        context=records.context_of(choice) if choice else b"",
    )


async def settle(world: World, gateway: Gateway, session_id: str) -> None:
    """Sweep once more, after what was done has settled and some time has passed."""
    await gateway.idle()
    world.age(session_id)
    await gateway.unsettled.round()


async def test_a_message_that_nobody_comes_back_for_is_answered_in_the_items_own_wording(world: World) -> None:
    gateway = world.gateway()
    session_id = await gateway.start()
    owner = await world.left_behind(gateway, session_id)

    await gateway.unsettled.round()

    turn = world.turn(session_id, owner.turn_id)
    record = record_pb2.TurnRecord.FromString(turn["record"])
    assert (turn["state"], turn["seq"], turn["fence"]) == ("COMMITTED", 2, owner.fence)
    assert turn["reply_text"] == record_wording(world, session_id, turn["item_asked"])
    assert (list(record.degraded), record.committed_by) == (["bank"], "repair")
    await settle(world, gateway, session_id)
    assert world.is_quiet(session_id)


def record_wording(world: World, session_id: str, item_id: str) -> str:
    """The wording with which the turn before had planned this item."""
    (before,) = world.rows("SELECT record FROM history.turns WHERE session_id = %s AND seq = 1", session_id)
    items = record_pb2.TurnRecord.FromString(before["record"]).next_items
    return next(item.wording for item in items if item.item_id == item_id)


async def test_a_question_that_the_model_has_answered_is_rolled_forward_as_it_was_meant(world: World) -> None:
    gateway = world.gateway()
    session_id = await gateway.start()
    owner = await world.left_behind(gateway, session_id)
    world.models.finish(world.models.begin(a_question(owner)))

    await gateway.unsettled.round()
    await gateway.idle()

    turn = world.turn(session_id, owner.turn_id)
    record = record_pb2.TurnRecord.FromString(turn["record"])
    assert (turn["state"], turn["reply_text"], turn["item_asked"]) == ("COMMITTED", QUESTION, "data-row-estimates")
    assert ([item.item_id for item in record.next_items], list(record.degraded)) == (["api-paging"], [])
    assert Counter(world.models.made) == {(owner.turn_id, "question"): 1, (owner.turn_id, "judge"): 1}


async def test_a_turn_whose_model_call_is_under_way_is_left_until_that_has_ended(world: World) -> None:
    gateway = world.gateway()
    session_id = await gateway.start()
    owner = await world.left_behind(gateway, session_id)
    question = world.models.begin(a_question(owner))

    await gateway.unsettled.round()
    before = world.turn(session_id, owner.turn_id)["state"]
    world.models.finish(question)
    await gateway.unsettled.round()

    assert before == "RUNNING"
    assert world.turn(session_id, owner.turn_id)["reply_text"] == QUESTION


@pytest.mark.parametrize("state", [llm_pb2.CALL_STATE_FAILED, llm_pb2.CALL_STATE_UNKNOWN])
@pytest.mark.parametrize("kind", ["interview", "chat"])
async def test_a_call_that_came_to_nothing_is_not_made_again_by_a_repair(
    world: World, kind: str, state: llm_pb2.CallState.ValueType
) -> None:
    gateway = world.gateway()
    session_id = await gateway.start(kind)
    owner = await world.left_behind(gateway, session_id)
    purpose = "question" if kind == "interview" else "chat"
    world.models.begin(a_question(owner, purpose)).state = state

    await gateway.unsettled.round()

    turn = world.turn(session_id, owner.turn_id)
    assert turn["state"] == ("COMMITTED" if kind == "interview" else "ABANDONED")
    assert turn["item_asked"] != "data-row-estimates"
    assert world.models.made.count((owner.turn_id, purpose)) == 1


async def test_who_comes_back_and_the_sweep_come_to_one_answer(world: World) -> None:
    gateway, replica = world.gateway(), world.gateway()
    sessions = await asyncio.gather(
        *(gateway.start("chat" if number % 3 == 0 else "interview") for number in range(12))
    )
    keys = {session_id: str(uuid.uuid4()) for session_id in sessions}
    owners = [await world.left_behind(gateway, session_id, request_id=keys[session_id]) for session_id in sessions]

    async def come_back(session_id: str) -> bytes:
        """The same message again, until it has its answer."""
        while True:
            try:
                return (await replica.say(session_id, request_id=keys[session_id])).turn.SerializeToString(
                    deterministic=True
                )
            except TurnInProgress as error:
                await asyncio.sleep((error.retry_after_ms or 0) / 1000)

    *answers, _, _ = await asyncio.gather(
        *map(come_back, sessions), gateway.unsettled.round(), replica.unsettled.round()
    )

    for owner, answer in zip(owners, answers, strict=True):
        turns = world.rows("SELECT state FROM history.turns WHERE session_id = %s", owner.head.session_id)
        assert Counter(turn["state"] for turn in turns) == {"COMMITTED": 2 if is_interview(owner) else 1}
        assert await come_back(owner.head.session_id) == answer
    assert max(Counter(world.models.made).values()) == 1


async def test_a_live_turn_is_left_to_its_owner(world: World) -> None:
    gateway = world.gateway()
    session_id = await gateway.start()
    begun = await call(
        gateway.contexts.history.BeginTurn, message(session_id).begin(history_pb2.WindowLimit(), uuid.uuid4()), CAP_MS
    )
    world.age(session_id)

    await gateway.unsettled.round()

    assert world.turn(session_id, begun.owner.turn_id)["state"] == "RUNNING"


async def test_a_chat_is_given_up_until_its_own_message_comes_again(world: World) -> None:
    gateway = world.gateway()
    session_id, request_id = await gateway.start("chat"), str(uuid.uuid4())
    owner = await world.left_behind(gateway, session_id, request_id=request_id)

    await gateway.unsettled.round()

    assert world.turn(session_id, owner.turn_id)["state"] == "ABANDONED"
    await settle(world, gateway, session_id)
    assert world.is_quiet(session_id)
    answered = await gateway.say(session_id, request_id=request_id)
    assert (answered.turn.turn_id, answered.turn.reply_text) == (owner.turn_id, QUESTION)


async def test_a_chats_reply_that_was_paid_for_is_rolled_forward(world: World) -> None:
    gateway = world.gateway()
    session_id = await gateway.start("chat")
    owner = await world.left_behind(gateway, session_id)
    world.models.finish(world.models.begin(a_question(owner, "chat", None)))

    await gateway.unsettled.round()

    turn = world.turn(session_id, owner.turn_id)
    assert (turn["state"], turn["reply_text"]) == ("COMMITTED", QUESTION)
    assert world.stream(session_id)["sealed"] is False
    assert world.models.made == [(owner.turn_id, "chat")]


async def test_an_interview_whose_opening_was_never_said_is_opened(world: World) -> None:
    gateway, request_id = world.gateway(), uuid.uuid4()
    dead = world.gateway(cannot_reach=("assessment", "session"))
    dead.sessions._plans[""] = (asyncio.get_running_loop().time(), await gateway.sessions._resolve(""))
    with pytest.raises(Unavailable):
        await dead.start(request_id=request_id)
    (stream,) = world.rows("SELECT session_id::text FROM history.streams")
    session_id = stream["session_id"]
    world.expire(session_id)

    await gateway.unsettled.round()
    await settle(world, gateway, session_id)

    page = await gateway.reading.sessions(history_pb2.Viewer(owner_id="ada"), None, 10, "")
    assert [(session.session_id, session.turns) for session in page.sessions] == [(session_id, 1)]
    assert world.is_quiet(session_id)
    again = await gateway.start(request_id=request_id)
    assert again == session_id


async def test_a_half_made_chat_is_entered_into_the_directory(world: World) -> None:
    gateway, dead = world.gateway(), world.gateway(cannot_reach=("session",))
    session_id = await dead.start("chat")
    world.age(session_id)

    await gateway.unsettled.round()

    (entry,) = world.rows("SELECT owner_id, kind FROM session.sessions WHERE session_id = %s", session_id)
    assert entry == {"owner_id": "ada", "kind": "chat"}
    assert world.is_quiet(session_id)


async def test_projections_that_lag_are_caught_up(world: World) -> None:
    gateway = world.gateway()
    dead = world.gateway(cannot_reach=("session", "assessment"))
    session_id = await gateway.start()
    await dead.say(session_id)
    await dead.say(session_id)
    await dead.idle()
    world.age(session_id)

    await gateway.unsettled.round()

    applied = [
        world.rows(f"SELECT applied_seq FROM {table} WHERE session_id = %s", session_id)[0]["applied_seq"]
        for table in ("session.sessions", "assessment.interviews")
    ]
    assert applied == [3, 3]
    assert world.is_quiet(session_id)


async def with_a_lost_turn(world: World, gateway: Gateway) -> str:
    """An interview whose ledger was restored to where it had two turns; its projections had been given three."""
    session_id = await gateway.start()
    await gateway.say(session_id)
    await gateway.idle()
    kept = world.stream(session_id)
    await gateway.say(session_id)
    await gateway.idle()
    world.execute("DELETE FROM history.turns WHERE session_id = %s AND seq > %s", session_id, kept["last_seq"])
    world.execute(
        "UPDATE history.streams SET (last_seq, head_digest, fence, rev, acked_rev) = (%s, %s, %s, %s, %s)"
        " WHERE session_id = %s",
        *(kept[column] for column in ("last_seq", "head_digest", "fence", "rev", "acked_rev")),
        session_id,
    )
    return session_id


def folded(world: World, session_id: str) -> list[tuple[int, bytes, bool]]:
    """Where the two projections stand, and whether they are closed."""
    entries = world.rows(
        "SELECT applied_seq, head_digest, completed_at IS NOT NULL AS completed FROM session.sessions"
        " WHERE session_id = %s UNION ALL"
        " SELECT applied_seq, head_digest, completed FROM assessment.interviews WHERE session_id = %s",
        session_id,
        session_id,
    )
    return [(entry["applied_seq"], entry["head_digest"], entry["completed"]) for entry in entries]


async def test_a_turn_in_the_place_of_one_that_a_restore_lost_has_both_projections_folded_again(world: World) -> None:
    gateway = world.gateway()
    session_id = await with_a_lost_turn(world, gateway)

    with capture_logs() as logs:
        await gateway.say(session_id)
        await gateway.idle()

    assert folded(world, session_id) == [(3, world.stream(session_id)["head_digest"], False)] * 2
    assert world.is_quiet(session_id)
    assert [log["event"] for log in logs if log["log_level"] == "error"] == [
        "projection_diverged",
        "projection_refolded",
    ] * 2


@pytest.mark.parametrize("ended", [False, True])
async def test_the_sweep_does_not_take_a_projection_of_as_many_other_turns_for_settled(
    world: World, ended: bool
) -> None:
    gateway, lame = world.gateway(), world.gateway(cannot_reach=("session", "assessment"))
    session_id = await with_a_lost_turn(world, gateway)
    await lame.say(session_id)
    if ended:
        await lame.reading.end(session_id, ANYBODY)
    await lame.idle()
    world.age(session_id)

    with capture_logs() as logs:
        await gateway.unsettled.round()

    assert folded(world, session_id) == [(3, world.stream(session_id)["head_digest"], ended)] * 2
    assert world.is_quiet(session_id)
    assert sum(log["event"] == "projection_refolded" for log in logs) == 2


async def test_a_session_that_was_ended_is_completed_once_the_directory_is_back(world: World) -> None:
    gateway, lame = world.gateway(), world.gateway(cannot_reach=("session", "assessment"))
    session_id = await gateway.start()

    ended = await lame.reading.end(session_id, ANYBODY)
    await lame.idle()
    world.age(session_id)
    before = world.rows("SELECT status FROM session.sessions WHERE session_id = %s", session_id)
    await gateway.unsettled.round()

    after = world.rows("SELECT status, completed_at FROM session.sessions WHERE session_id = %s", session_id)
    assert before == [{"status": "open"}]
    assert after[0]["status"] == "completed"
    assert after[0]["completed_at"] == ended.completed_at.ToDatetime(tzinfo=after[0]["completed_at"].tzinfo)
    assert world.is_quiet(session_id)


async def test_what_two_replicas_sweep_at_once_happens_once(world: World) -> None:
    gateways = [world.gateway() for _ in range(3)]
    kinds = ["chat", "interview", "interview"] * 4
    sessions = await asyncio.gather(*(gateways[0].start(kind) for kind in kinds))
    owners = [await world.left_behind(gateways[0], session_id) for session_id in sessions]
    for owner in owners[:6]:
        world.models.finish(world.models.begin(a_question(owner, "question" if is_interview(owner) else "chat")))
    recovered = recoveries()

    await asyncio.gather(*(gateway.unsettled.round() for gateway in gateways))

    ended = Counter(world.turn(owner.head.session_id, owner.turn_id)["state"] for owner in owners)
    assert ended == {"COMMITTED": 10, "ABANDONED": 2}
    assert recoveries() - recovered == {"rolled_forward": 6, "bank": 4, "abandoned": 2}
    for gateway in gateways:
        await gateway.idle()
    made = Counter(world.models.made)
    assert max(made.values()) == 1
    for owner in owners:
        world.age(owner.head.session_id)
    await asyncio.gather(*(gateway.unsettled.round() for gateway in gateways))
    assert all(world.is_quiet(owner.head.session_id) for owner in owners)


def is_interview(owner: history_pb2.Owner) -> bool:
    return owner.head.kind == history_pb2.KIND_INTERVIEW


def recoveries() -> Counter[str]:
    """Turns recovered so far in this process, by how."""
    (family,) = telling.TURNS_RECOVERED.collect()
    counted = [sample for sample in family.samples if sample.name.endswith("_total")]
    return Counter({sample.labels["how"]: int(sample.value) for sample in counted})


async def test_a_session_that_cannot_be_repaired_keeps_no_other_waiting(world: World) -> None:
    gateway = world.gateway()
    broken, sound = await gateway.start(), await gateway.start()
    for session_id in (broken, sound):
        await world.left_behind(gateway, session_id)
    world.execute("UPDATE history.turns SET record = '\\xff' WHERE session_id = %s", broken)
    world.execute("DELETE FROM session.sessions WHERE session_id = %s", broken)
    swept = telling.SWEPT._value.get()

    for _ in range(2):
        await gateway.unsettled.round()
        await gateway.idle()
        for session_id in (broken, sound):
            world.age(session_id)

    assert world.is_quiet(sound)
    assert not world.is_quiet(broken)
    assert telling.SWEPT._value.get() > swept


async def test_while_a_context_does_not_answer_the_rest_goes_on_and_the_round_says_so(world: World) -> None:
    gateway, lame = world.gateway(), world.gateway(cannot_reach=("assessment",))
    interview, chat = await gateway.start(), await gateway.start("chat")
    expired = await world.left_behind(gateway, await gateway.start())
    for session_id in (interview, chat):
        world.execute("UPDATE history.streams SET acked_rev = 0 WHERE session_id = %s", session_id)
        world.age(session_id)

    with pytest.raises(Unavailable):
        await lame.unsettled.round()

    assert world.is_quiet(chat)
    assert not world.is_quiet(interview)
    assert world.turn(expired.head.session_id, expired.turn_id)["state"] == "COMMITTED"


async def test_pages_go_round_and_come_to_everybody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsettled, "MAX_BATCH", 2)
    gateway = world.gateway()
    owners = [await world.left_behind(gateway, await gateway.start()) for _ in range(5)]
    for owner in owners[:2]:  # what cannot be done now comes first, and stays
        world.models.begin(a_question(owner))
        world.execute("UPDATE history.streams SET acked_rev = 0 WHERE session_id = %s", owner.head.session_id)

    more = [await gateway.unsettled.round() for _ in range(3)]

    states = Counter(world.turn(owner.head.session_id, owner.turn_id)["state"] for owner in owners)
    assert more == [True, True, False]
    assert states == {"RUNNING": 2, "COMMITTED": 3}


async def test_the_pause_for_a_context_that_does_not_answer_comes_at_the_end_of_the_list(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsettled, "MAX_BATCH", 2)
    gateway, lame = world.gateway(), world.gateway(cannot_reach=("session",))
    owners = [await world.left_behind(gateway, await gateway.start()) for _ in range(3)]
    for _ in range(2):
        behind = await gateway.start()
        world.execute("UPDATE history.streams SET acked_rev = 0 WHERE session_id = %s", behind)
        world.age(behind)

    more = [await lame.unsettled.round() for _ in range(2)]
    with pytest.raises(Unavailable):
        await lame.unsettled.round()

    assert more == [True, True]
    assert {world.turn(owner.head.session_id, owner.turn_id)["state"] for owner in owners} == {"COMMITTED"}


async def test_the_sweep_finishes_an_erasure(world: World) -> None:
    gateway = world.gateway()
    lame = world.gateway(cannot_reach=("session", "assessment", "llm"))
    session_id = await gateway.start()
    await gateway.say(session_id)
    await gateway.idle()

    await lame.erasing.erase(session_id, ANYBODY)
    world.age(session_id)
    before = (world.is_quiet(session_id), session_id in world.models.erased)
    await gateway.unsettled.round()

    assert before == (False, False)
    assert session_id in world.models.erased
    assert world.rows("SELECT erased FROM session.sessions WHERE session_id = %s", session_id) == [{"erased": True}]
    assert world.rows("SELECT erased FROM assessment.interviews WHERE session_id = %s", session_id) == [
        {"erased": True}
    ]
    assert world.is_quiet(session_id)


async def test_an_answer_whose_judge_was_out_of_reach_is_scored_late(world: World) -> None:
    gateway = world.gateway()
    session_id = await gateway.start()
    world.models.held["judge"]  # late: nobody hears of it before the turn is over
    owner = await world.left_behind(gateway, session_id)
    await gateway.unsettled.round()
    await gateway.background.drain(0)
    replica = world.gateway()
    world.age(session_id)
    await replica.unsettled.round()
    await replica.idle()
    world.models.held["judge"].set()
    world.age(session_id)

    await replica.unscored.round()

    (answer,) = world.rows(
        "SELECT turn_id::text, state, level FROM assessment.answers WHERE session_id = %s", session_id
    )
    assert answer == {"turn_id": owner.turn_id, "state": "SCORED", "level": 2}
    assert Counter(world.models.made)[owner.turn_id, "judge"] == 1


async def test_results_are_cleared_of_turns_that_are_settled_and_of_no_others(world: World) -> None:
    gateway = world.gateway()
    interview, chat = await gateway.start(), await gateway.start("chat")
    answered = (await gateway.say(interview)).turn.turn_id
    await gateway.idle()
    waiting = await world.left_behind(gateway, chat)
    world.models.finish(world.models.begin(a_question(waiting, "chat", None)))

    while await gateway.clearable.round():
        pass

    assert world.models.cleared == [answered]


async def test_results_are_cleared_of_a_turn_that_was_given_back_and_overtaken(world: World) -> None:
    gateway = world.gateway()
    chat = await gateway.start("chat")
    left = await world.left_behind(gateway, chat)
    world.models.finish(world.models.begin(a_question(left, "chat", None)))
    release = history_pb2.ReleaseTurnRequest(
        session_id=chat,
        turn_id=left.turn_id,
        fence=left.fence,
        state=history_pb2.TURN_STATE_ABANDONED,
        reason="UNAVAILABLE",
    )
    await call(gateway.contexts.history.ReleaseTurn, release, CAP_MS)
    await gateway.clearable.round()
    pending = [*world.models.cleared]

    await gateway.say(chat)
    await gateway.idle()
    while await gateway.clearable.round():
        pass

    assert pending == []
    assert left.turn_id in world.models.cleared


async def test_what_is_erased_meanwhile_is_no_failure_of_the_others(world: World) -> None:
    gateway = world.gateway()
    gone, kept = await gateway.start(), await gateway.start()
    for session_id in (gone, kept):
        await world.left_behind(gateway, session_id)

    async def erase() -> None:
        await call(
            gateway.contexts.history.EraseStream,
            history_pb2.EraseStreamRequest(session_id=gone, viewer=ANYBODY),
            CAP_MS,
        )

    await asyncio.gather(gateway.unsettled.round(), erase())

    with pytest.raises(NotFound):
        await gateway.reading.session(gone, ANYBODY, ANYBODY)
    assert world.stream(kept)["last_seq"] == 2
