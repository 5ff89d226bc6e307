"""AssessmentService over a real channel: plans, interviews and their folds."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from colloquy.assessment.v1 import assessment_pb2
from libs.folding.runs import first_digest
from libs.runtime import client
from libs.runtime.errors import ColloquyError, InvalidField, Malformed, NotFound, Unimplemented
from tests.databases import Database
from tests.rpc.assessment_world import CAP_MS, Told, World, says, verdict, world

Outcome = assessment_pb2.ApplyTurnsResponse.Outcome


@pytest.fixture(scope="module")
async def served(database: Database) -> AsyncIterator[World]:
    async with world(database) as up:
        yield up


def fields_of(error: ColloquyError) -> list[str]:
    return [violation.field for violation in error.violations]


async def test_an_empty_plan_is_the_default_one(served: World) -> None:
    default = await client.call(served.assessment.ResolvePlan, assessment_pb2.ResolvePlanRequest(), CAP_MS)
    quick = await client.call(served.assessment.ResolvePlan, assessment_pb2.ResolvePlanRequest(plan="quick"), CAP_MS)

    assert (default.plan, default.bank_version) == ("backend-engineer", "backend-engineer/1")
    assert (quick.plan, quick.max_items) == ("quick", 3)


async def test_an_unknown_plan_is_refused_with_those_there_are(served: World) -> None:
    with pytest.raises(InvalidField) as refused:
        await client.call(served.assessment.ResolvePlan, assessment_pb2.ResolvePlanRequest(plan="astronaut"), CAP_MS)

    assert fields_of(refused.value) == ["plan"]
    assert "backend-engineer, quick" in refused.value.violations[0].message


async def test_a_start_greets_by_name_and_asks_the_first_item(served: World) -> None:
    request = assessment_pb2.StartInterviewRequest(
        session_id=str(uuid4()), plan="quick", bank_version="backend-engineer/1", candidate_name="  Zoë\nK. "
    )

    started = await client.call(served.assessment.StartInterview, request, CAP_MS)
    again = await client.call(served.assessment.StartInterview, request, CAP_MS)

    assert started.plan.applied_seq == 0
    assert started.opening_text.startswith("Hello Zoë K., ")
    assert started.opening_text.endswith(started.plan.items[0].wording)
    assert again == started


async def test_a_start_repeated_later_tells_the_plan_where_the_interview_stands(served: World) -> None:
    told = await served.start()
    told.turn(asked=told.plan.items[0].item_id)
    await served.apply(told.run())

    again = await client.call(
        served.assessment.StartInterview,
        assessment_pb2.StartInterviewRequest(
            session_id=str(told.session_id), plan="backend-engineer", bank_version="backend-engineer/1"
        ),
        CAP_MS,
    )

    assert again.plan.applied_seq == 1
    assert again.opening_text.endswith(told.plan.items[0].wording)
    assert told.plan.items[0] not in again.plan.items


@pytest.mark.parametrize(
    ("changes", "field"), [({"plan": "astronaut"}, "plan"), ({"bank_version": "backend-engineer/999"}, "bank_version")]
)
async def test_a_start_needs_a_plan_and_a_bank_that_there_are(
    served: World, changes: dict[str, str], field: str
) -> None:
    pins = {"plan": "quick", "bank_version": "backend-engineer/1", **changes}

    with pytest.raises(InvalidField) as refused:
        await client.call(
            served.assessment.StartInterview,
            assessment_pb2.StartInterviewRequest(session_id=str(uuid4()), **pins),
            CAP_MS,
        )

    assert fields_of(refused.value) == [field]


async def test_an_interview_asks_each_item_once_and_ends_by_itself(served: World) -> None:
    told = await served.start("quick")
    plan, asked = told.plan, []

    while plan.items:
        asked.append(plan.items[0])
        turn = told.turn(asked=plan.items[0].item_id)
        plan = await served.get_plan(told, [turn], turn.seq)
        await served.apply(told.run())

    assert len({item.item_id for item in asked}) == 3
    assert {item.skill for item in asked} == {"data", "concurrency", "reliability"}
    assert plan.done_reason == "max_items"
    assert plan.closing_text
    assert plan.applied_seq == 3


async def test_a_plan_takes_the_last_turn_into_account_and_repeats_itself(served: World) -> None:
    told = await served.start()
    opening = told.turn(asked=told.plan.items[0].item_id)

    plans = await asyncio.gather(*(served.get_plan(told, [opening], 1) for _ in range(10)))

    assert all(plan == plans[0] for plan in plans)
    assert plans[0].applied_seq == 1
    assert told.plan.items[0] not in plans[0].items


async def test_a_plan_that_lacks_turns_says_so_and_is_repaired_with_them(served: World) -> None:
    told = await served.start()
    for item in told.plan.items:
        told.turn(asked=item.item_id)

    behind = await served.get_plan(told, told.turns[-1:], 5)
    repaired = await served.get_plan(told, told.turns, 5)

    assert behind.applied_seq == 0
    assert repaired.applied_seq == 5


async def test_a_late_score_changes_the_next_plan_as_a_punctual_one_would(served: World) -> None:
    plans = []
    for late in (False, True):
        told = await served.start()
        opening = told.turn(asked="data-suddenly-slow-query")
        answer = told.turn(asked="concurrency-deadlock")
        served.llm.script[answer.turn_id].append(says(verdict(0)))
        if late:
            unscored = await served.get_plan(told, [opening, answer], 2)
            await served.assess(told, answer)
        else:
            await served.assess(told, answer)
            unscored = None
        plan = await served.get_plan(told, [opening, answer], 2)
        plans.append((plan.items, plan.done_reason))
        assert unscored is None or unscored.items != plan.items

    assert plans[0] == plans[1]


async def test_a_plan_for_no_interview_is_not_found(served: World) -> None:
    told = Told(uuid4())

    with pytest.raises(NotFound):
        await served.get_plan(told, [], 0)
    with pytest.raises(NotFound):
        await served.get_plan(told, [told.turn(asked="data-suddenly-slow-query")], 1)


async def test_turns_past_the_base_are_refused_by_the_fields_name(served: World) -> None:
    told = await served.start()
    turn = told.turn(asked="data-suddenly-slow-query")

    with pytest.raises(InvalidField) as refused:
        await served.get_plan(told, [turn], 0)

    assert fields_of(refused.value) == ["base_seq"]


async def test_a_batch_has_a_result_for_each_session_in_the_order_of_the_request(served: World) -> None:
    folded, sealed, absent = await served.start(), await served.start(), Told(uuid4())
    for told in (folded, sealed, absent):
        told.turn(asked="data-suddenly-slow-query")
        told.turn(asked="")

    results = await served.apply(absent.run(), folded.run(), sealed.run(sealed=True))
    again = await served.apply(folded.run(2), sealed.run(3, sealed=True))

    assert [(it.session_id, it.outcome, it.applied_seq, it.completed, it.head_digest) for it in results] == [
        (str(absent.session_id), Outcome.OUTCOME_ABSENT, 0, False, b""),
        (str(folded.session_id), Outcome.OUTCOME_OK, 2, False, folded.turns[1].digest),
        (str(sealed.session_id), Outcome.OUTCOME_OK, 2, True, sealed.turns[1].digest),
    ]
    assert [it.outcome for it in again] == [Outcome.OUTCOME_DUPLICATE, Outcome.OUTCOME_DUPLICATE]


async def test_an_empty_run_tells_where_the_interview_stands(served: World) -> None:
    told = await served.start()

    (result,) = await served.apply(told.run())

    assert (result.outcome, result.applied_seq) == (Outcome.OUTCOME_DUPLICATE, 0)
    assert result.head_digest == first_digest(told.session_id)


async def test_every_broken_rule_of_a_batch_is_named_where_it_stands(served: World) -> None:
    good, gapped, short = Told(uuid4()), Told(uuid4()), Told(uuid4())
    for told in (good, gapped, short):
        told.turn(asked="data-suddenly-slow-query")
        told.turn(asked="api-paging")
    del gapped.turns[0]
    gapped.turns.append(good.turns[0])
    too_short = short.run()
    too_short.last_seq = 1

    with pytest.raises(InvalidField) as refused:
        await served.apply(good.run(), gapped.run(), too_short)

    assert fields_of(refused.value) == [
        "sessions[1].turns[1].seq",
        "sessions[1].turns[1].previous_digest",
        "sessions[2].last_seq",
    ]


async def test_a_session_comes_once_in_a_batch(served: World) -> None:
    told = await served.start()

    with pytest.raises(InvalidField) as refused:
        await served.apply(told.run(), told.run())

    assert fields_of(refused.value) == ["sessions"]


async def test_ids_and_digests_that_are_none_are_malformed(served: World) -> None:
    told = await served.start()
    turn = told.turn(asked="data-suddenly-slow-query")
    short_digest = assessment_pb2.AppliedTurn()
    short_digest.CopyFrom(turn)
    short_digest.digest = b"short"

    with pytest.raises(Malformed):
        await client.call(served.assessment.GetPlan, assessment_pb2.GetPlanRequest(session_id="nonsense"), CAP_MS)
    with pytest.raises(Malformed):
        await client.call(
            served.assessment.GetPlan, assessment_pb2.GetPlanRequest(session_id=str(told.session_id).upper()), CAP_MS
        )
    with pytest.raises(Malformed):
        await served.get_plan(told, [short_digest], 1)


async def test_an_items_id_that_the_database_could_not_hold_is_refused(served: World) -> None:
    told = await served.start()

    with pytest.raises(InvalidField):
        await served.get_plan(told, [told.turn(asked="data\0")], 1)


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({"max_answers": 0}, ["max_answers"]),
        ({"max_answers": 501, "min_age_ms": -1}, ["max_answers", "min_age_ms"]),
        ({"max_answers": 1, "page_token": "nonsense"}, ["page_token"]),
    ],
)
async def test_a_page_of_unscored_answers_has_its_bounds(
    served: World, fields: dict[str, Any], violated: list[str]
) -> None:
    with pytest.raises(InvalidField) as refused:
        await client.call(served.assessment.ListUnscored, assessment_pb2.ListUnscoredRequest(**fields), CAP_MS)

    assert fields_of(refused.value) == violated


async def test_unscored_answers_are_named_page_by_page_with_what_it_takes_to_score_them(served: World) -> None:
    told = await served.start()
    told.turn(asked="data-suddenly-slow-query")
    for asked in ("concurrency-deadlock", "", ""):
        told.turn(asked=asked, answered="data-suddenly-slow-query" if not asked else None)
    await served.apply(told.run())

    named, token = list[assessment_pb2.ListUnscoredResponse.Unscored](), ""
    while True:
        request = assessment_pb2.ListUnscoredRequest(max_answers=2, page_token=token)
        page = await client.call(served.assessment.ListUnscored, request, CAP_MS)
        named += [answer for answer in page.answers if answer.session_id == str(told.session_id)]
        token = page.next_page_token
        if not token:
            break

    assert [answer.seq for answer in named] == [2, 3, 4]
    assert named[0] == assessment_pb2.ListUnscoredResponse.Unscored(
        session_id=str(told.session_id),
        turn_id=told.turns[1].turn_id,
        seq=2,
        item_id="data-suddenly-slow-query",
        bank_version="backend-engineer/1",
    )


async def test_an_erased_interview_is_refused_as_erased(served: World) -> None:
    begun, never = await served.start(), Told(uuid4())
    for told in (begun, never, begun):
        told.turn(asked="data-suddenly-slow-query")
        await served.erase(told)

    for told in (begun, never):
        start = assessment_pb2.StartInterviewRequest(
            session_id=str(told.session_id), plan="backend-engineer", bank_version="backend-engineer/1"
        )
        with pytest.raises(NotFound):
            await client.call(served.assessment.StartInterview, start, CAP_MS)
        with pytest.raises(NotFound):
            await served.get_plan(told, told.turns[:1], 1)
        [result] = await served.apply(told.run(last=1))
        assert result.outcome == assessment_pb2.ApplyTurnsResponse.OUTCOME_ERASED


async def test_only_a_session_can_be_erased(served: World) -> None:
    with pytest.raises(Malformed):
        await client.call(
            served.assessment.EraseInterview, assessment_pb2.EraseInterviewRequest(session_id="7"), CAP_MS
        )


async def test_what_is_not_built_says_so(served: World) -> None:
    with pytest.raises(Unimplemented):
        await client.call(served.assessment.GetReport, assessment_pb2.GetReportRequest(session_id=str(uuid4())), CAP_MS)
