"""The contract's messages, to values and back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from colloquy.assessment.v1 import assessment_pb2
from libs.folding.runs import DIGEST_BYTES, Digest, Run
from libs.paging import tokens
from libs.paging.tokens import Place
from libs.runtime.errors import FieldViolation, InvalidField, Malformed
from services.assessment.answers import Answer, Assessed
from services.assessment.domain import Ask, Item, ItemId
from services.assessment.evidence import (
    LONGEST,
    AnswerKey,
    AppliedTurn,
    Cursor,
    SessionId,
    TurnId,
    Unscored,
    UnscoredPage,
    UnscoredRequest,
)
from services.assessment.usecases import Applied, Choice, LedgerRun, Resolved

MAX_ITEM_ID_CHARS: Final = 100


def session_id(text: str) -> SessionId:
    return SessionId(_uuid(text, "session_id"))


def plan_request(request: assessment_pb2.GetPlanRequest) -> LedgerRun:
    violations = list[FieldViolation]()
    with _within(violations, {"last_seq": "base_seq"}):
        return Run(session_id(request.session_id), _turns(request.turns), request.base_seq)
    raise InvalidField(violations)


def answer(request: assessment_pb2.AssessAnswerRequest) -> Answer:
    violations = [
        FieldViolation(name, "No NUL.")
        for name, text in (("question_text", request.question_text), ("answer_text", request.answer_text))
        if "\0" in text
    ]
    if not request.answer_text:
        violations.append(FieldViolation("answer_text", "Say what was answered."))
    if violations:
        raise InvalidField(violations)
    return Answer(
        key=AnswerKey(session_id(request.session_id), TurnId(_uuid(request.turn_id, "turn_id"))),
        bank_version=request.bank_version,
        item_id=request.item_id,
        question=request.question_text,
        text=request.answer_text,
        degraded=request.degraded,
    )


def runs(request: assessment_pb2.ApplyTurnsRequest) -> list[LedgerRun]:
    violations, received = list[FieldViolation](), list[LedgerRun]()
    for index, sent in enumerate(request.sessions):
        with _within(violations, {}, f"sessions[{index}]."):
            received.append(_run(sent))
    if violations:
        raise InvalidField(violations)
    return received


def unscored_request(request: assessment_pb2.ListUnscoredRequest) -> UnscoredRequest:
    after = _cursor(request.page_token) if request.page_token else LONGEST
    return UnscoredRequest(request.max_answers, request.min_age_ms, after)


def resolved(plan: Resolved) -> assessment_pb2.ResolvePlanResponse:
    return assessment_pb2.ResolvePlanResponse(
        plan=plan.pins.plan, bank_version=plan.pins.bank_version, max_items=plan.max_items
    )


def plan(choice: Choice) -> assessment_pb2.Plan:
    plan = assessment_pb2.Plan(
        applied_seq=choice.applied_seq, closing_text=choice.closing, bank_version=choice.bank_version
    )
    if isinstance(choice.decision, Ask):
        plan.items.extend(_item(item) for item in choice.decision.items)
    else:
        plan.done_reason = choice.decision.reason.value
    return plan


def assessed(assessed: Assessed) -> assessment_pb2.AssessAnswerResponse:
    scored = assessed.level is not None
    return assessment_pb2.AssessAnswerResponse(
        state=assessment_pb2.AssessAnswerResponse.STATE_SCORED
        if scored
        else assessment_pb2.AssessAnswerResponse.STATE_UNSCORABLE,
        level=assessed.level or 0,
        prompt_tokens=assessed.usage.prompt_tokens,
        completion_tokens=assessed.usage.completion_tokens,
        cost_nano_usd=assessed.usage.cost_nano_usd,
    )


def result(applied: Applied) -> assessment_pb2.ApplyTurnsResponse.Result:
    outcome = assessment_pb2.ApplyTurnsResponse.Outcome.Value(f"OUTCOME_{applied.outcome}")
    result = assessment_pb2.ApplyTurnsResponse.Result(session_id=str(applied.session_id), outcome=outcome)
    if applied.position:
        result.applied_seq = applied.position.applied_seq
        result.head_digest = applied.position.head_digest
        result.completed = applied.position.completed
    return result


def unscored(page: UnscoredPage) -> assessment_pb2.ListUnscoredResponse:
    return assessment_pb2.ListUnscoredResponse(
        answers=[_unscored(answer) for answer in page.answers],
        next_page_token=_page_token(page.next) if page.next else "",
    )


def _unscored(answer: Unscored) -> assessment_pb2.ListUnscoredResponse.Unscored:
    return assessment_pb2.ListUnscoredResponse.Unscored(
        session_id=str(answer.key.session_id),
        turn_id=str(answer.key.turn_id),
        seq=answer.seq,
        item_id=answer.item_id,
        bank_version=answer.bank_version,
    )


def _page_token(cursor: Cursor) -> str:
    return tokens.encode(Place(cursor.waits_from, (cursor.key.session_id, cursor.key.turn_id)))


def _cursor(token: str) -> Cursor:
    place = tokens.decode(token, ids=2)
    return Cursor(place.moment, AnswerKey(SessionId(place.ids[0]), TurnId(place.ids[1])))


def _item(item: Item) -> assessment_pb2.Item:
    return assessment_pb2.Item(item_id=item.id, skill=item.skill, wording=item.wording)


def _run(sent: assessment_pb2.InterviewTurns) -> LedgerRun:
    return Run(
        session_id=session_id(sent.session_id),
        turns=_turns(sent.turns),
        last_seq=sent.last_seq,
        sealed=sent.sealed,
        replaces=_digest(sent.replaces_digest) if sent.replaces_digest else None,
    )


def _turns(sent: Sequence[assessment_pb2.AppliedTurn]) -> tuple[AppliedTurn, ...]:
    return tuple(
        AppliedTurn(
            turn_id=TurnId(_uuid(turn.turn_id, "turn_id")),
            seq=turn.seq,
            previous_digest=_digest(turn.previous_digest),
            digest=_digest(turn.digest),
            item_answered=_item_id(turn.item_answered),
            item_asked=_item_id(turn.item_asked),
        )
        for turn in sent
    )


def _item_id(text: str) -> ItemId | None:
    if "\0" in text or len(text) > MAX_ITEM_ID_CHARS:
        raise InvalidField(
            [FieldViolation("turns", f"An item's id has at most {MAX_ITEM_ID_CHARS} characters, no NUL.")]
        )
    return ItemId(text) if text else None


def _uuid(text: str, name: str) -> UUID:
    try:
        parsed = UUID(text)
    except ValueError:
        raise Malformed(f"A {name} is not a UUID.") from None
    if str(parsed) != text:
        raise Malformed(f"A {name} is not a UUID in its canonical form.")
    return parsed


def _digest(received: bytes) -> Digest:
    if len(received) != DIGEST_BYTES:
        raise Malformed(f"A digest does not have {DIGEST_BYTES} bytes.")
    return Digest(received)


@contextmanager
def _within(violations: list[FieldViolation], names: dict[str, str], path: str = "") -> Iterator[None]:
    """Keep what an InvalidField in the block says, its fields by their names in the request, below `path`."""
    try:
        yield
    except InvalidField as error:
        violations.extend(
            FieldViolation(f"{path}{names.get(it.field, it.field)}", it.message) for it in error.violations
        )
