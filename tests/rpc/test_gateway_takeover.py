"""A turn that was left behind, taken over by its own message: what was paid for is used, as it was meant."""

import uuid

import pytest

from colloquy.gateway.v1 import record_pb2
from colloquy.history.v1 import history_pb2
from colloquy.llm.v1 import llm_pb2
from libs.runtime.errors import InvalidField
from services.gateway import records
from services.gateway.domain import Choice, Degradation, Item
from tests.rpc.gateway_world import QUESTION, World, world

__all__ = ["world"]

MEANT = Choice(Item("data-row-estimates", "databases", "Which?"), (Item("api-paging", "apis", "Why?"),), "Bye.")


def the_call(owner: history_pb2.Owner, purpose: str, choice: Choice | None = None) -> llm_pb2.GenerateRequest:
    return llm_pb2.GenerateRequest(
        session_id=owner.head.session_id,
        turn_id=owner.turn_id,
        purpose=purpose,
        context=records.context_of(choice) if choice else b"",
    )


async def test_a_question_that_was_made_for_another_item_is_committed_with_that_item(world: World) -> None:
    gateway, request_id = world.gateway(), str(uuid.uuid4())
    session_id = await gateway.start()
    owner = await world.left_behind(gateway, session_id, request_id=request_id)
    world.models.finish(world.models.begin(the_call(owner, "question", MEANT)))

    answered = await gateway.say(session_id, request_id=request_id)

    turn = world.turn(session_id, owner.turn_id)
    record = record_pb2.TurnRecord.FromString(turn["record"])
    assert (answered.turn.turn_id, answered.turn.reply_text) == (owner.turn_id, QUESTION)
    assert (turn["item_asked"], turn["fence"]) == ("data-row-estimates", owner.fence + 1)
    assert [item.item_id for item in record.next_items] == ["api-paging"]
    assert (record.closing_text, record.committed_by) == ("Bye.", "takeover")
    assert world.models.made.count((owner.turn_id, "question")) == 1


async def test_without_a_plan_too_a_question_that_was_paid_for_is_asked(world: World) -> None:
    gateway, lame, request_id = world.gateway(), world.gateway(cannot_reach=("assessment",)), str(uuid.uuid4())
    session_id = await gateway.start()
    owner = await world.left_behind(gateway, session_id, request_id=request_id)
    world.models.finish(world.models.begin(the_call(owner, "question", MEANT)))

    answered = await lame.say(session_id, request_id=request_id)

    assert (answered.turn.reply_text, list(answered.turn.degraded)) == (QUESTION, [])


@pytest.mark.parametrize("state", [llm_pb2.CALL_STATE_FAILED, llm_pb2.CALL_STATE_UNKNOWN])
async def test_a_call_that_came_to_nothing_is_made_again_for_what_is_chosen_now(
    world: World, state: llm_pb2.CallState.ValueType
) -> None:
    gateway, request_id = world.gateway(), str(uuid.uuid4())
    session_id = await gateway.start()
    owner = await world.left_behind(gateway, session_id, request_id=request_id)
    world.models.begin(the_call(owner, "question", MEANT.marked(Degradation.PLAN))).state = state

    answered = await gateway.say(session_id, request_id=request_id)

    assert (answered.turn.reply_text, list(answered.turn.degraded)) == (QUESTION, [])
    assert world.turn(session_id, owner.turn_id)["item_asked"] != "data-row-estimates"
    assert world.models.made.count((owner.turn_id, "question")) == 2


async def test_a_chat_whose_reply_cannot_be_shown_has_failed_for_good(world: World) -> None:
    gateway, request_id = world.gateway(), str(uuid.uuid4())
    session_id = await gateway.start("chat")
    owner = await world.left_behind(gateway, session_id, request_id=request_id)
    said = world.models.begin(the_call(owner, "chat"))
    world.models.finish(said)
    said.text = "x" * 9000

    for _ in range(2):
        with pytest.raises(InvalidField):
            await gateway.say(session_id, request_id=request_id)

    turn = world.turn(session_id, owner.turn_id)
    assert (turn["state"], turn["reason"]) == ("FAILED", "INVALID_FIELD")
    assert world.models.made == [(owner.turn_id, "chat")]
