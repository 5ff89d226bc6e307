"""What the gateway writes into the ledger and reads back: records, contexts, facts, and the views made of them.

Translation only; the rules are in `domain`, the calls in `usecases`.
"""

from collections.abc import Mapping, Sequence

from colloquy.assessment.v1 import assessment_pb2
from colloquy.gateway.v1 import gateway_pb2, record_pb2
from colloquy.history.v1 import history_pb2
from colloquy.session.v1 import session_pb2
from libs.runtime.errors import ColloquyError, FieldViolation, InvalidField, Reason, error_of
from services.gateway.domain import Choice, Degradation, Item

VIEWED_KIND = {history_pb2.KIND_INTERVIEW: gateway_pb2.KIND_INTERVIEW, history_pb2.KIND_CHAT: gateway_pb2.KIND_CHAT}

LISTED_KIND = {
    history_pb2.KIND_UNSPECIFIED: session_pb2.KIND_UNSPECIFIED,
    history_pb2.KIND_INTERVIEW: session_pb2.KIND_INTERVIEW,
    history_pb2.KIND_CHAT: session_pb2.KIND_CHAT,
}


def items_of_plan(plan: assessment_pb2.Plan) -> tuple[Item, ...]:
    return tuple(Item(item.item_id, item.skill, item.wording) for item in plan.items)


def _item(planned: record_pb2.PlannedItem) -> Item:
    return Item(planned.item_id, planned.skill, planned.wording)


def _planned(item: Item) -> record_pb2.PlannedItem:
    return record_pb2.PlannedItem(item_id=item.item_id, skill=item.skill, wording=item.wording)


def context_of(choice: Choice) -> bytes:
    """All that the record takes from the plan, stored with the intent of the call that phrases it."""
    return record_pb2.CallContext(
        item=_planned(choice.item) if choice.item else None,
        next_items=[_planned(item) for item in choice.alternatives],
        degraded=list(choice.degraded),
        closing_text=choice.closing_text,
    ).SerializeToString()


def choice_of(context: bytes) -> Choice:
    """The choice that a call was made for, whoever offers one now."""
    stored = record_pb2.CallContext.FromString(context)
    return Choice(
        _item(stored.item) if stored.HasField("item") else None,
        tuple(_item(item) for item in stored.next_items),
        stored.closing_text,
        tuple(mark for mark in Degradation if mark in stored.degraded),  # a newer replica may know more
    )


def fallback(last_turn: history_pb2.Turn) -> Choice:
    """The choice that the last record leaves to a turn without a plan: the best of its next items, if there is one.

    It keeps the last turn's degradations, which tell whether "none" was a plan's word or the end of a supply.
    """
    record = record_pb2.TurnRecord.FromString(last_turn.record)
    items = [_item(item) for item in record.next_items]
    return Choice(
        items[0] if items else None,
        tuple(items[1:]),
        record.closing_text,
        tuple(mark for mark in Degradation if mark in record.degraded),
    )


def record_of(
    choice: Choice,
    *,
    final: bool,
    timing: gateway_pb2.Timing,
    usage: gateway_pb2.Usage,
    versions: Mapping[str, str],
    committed_by: str,
    scored: bool,
) -> bytes:
    """The gateway's account of a turn; deterministic, since its bytes are part of the ledger's digest."""
    return record_pb2.TurnRecord(
        degraded=list(choice.degraded),
        timing=timing,
        usage=usage,
        next_items=[_planned(item) for item in choice.alternatives],
        final=final,
        closing_text=choice.closing_text,
        versions=versions,
        committed_by=committed_by,
        scored=scored,
    ).SerializeToString(deterministic=True)


def frozen_error(turn: history_pb2.Turn) -> ColloquyError:
    """What a FAILED turn answers, every time: nothing but the reason was kept."""
    if turn.reason == Reason.INVALID_FIELD:
        return InvalidField([FieldViolation("text", "The model refuses this message.")])
    return error_of(Reason(turn.reason))


def turn_view(session_id: str, turn: history_pb2.Turn) -> gateway_pb2.Turn:
    """A committed turn as clients see it: nothing but what the ledger froze."""
    record = record_pb2.TurnRecord.FromString(turn.record)
    return gateway_pb2.Turn(
        session_id=session_id,
        turn_id=turn.turn_id,
        seq=turn.seq,
        reply_text=turn.reply_text,
        session_status=gateway_pb2.SESSION_STATUS_COMPLETED if record.final else gateway_pb2.SESSION_STATUS_OPEN,
        degraded=record.degraded,
        timing=record.timing,
        usage=record.usage,
        created_at=turn.committed_at,
    )


def opened_view(head: history_pb2.Head, turns: int) -> gateway_pb2.Session:
    """A session as it was right after its opening: the same for every replay of the request that opened it."""
    facts = record_pb2.SessionFacts.FromString(head.facts)
    personal = record_pb2.PersonalFacts.FromString(head.personal_facts)
    return gateway_pb2.Session(
        session_id=head.session_id,
        kind=VIEWED_KIND[head.kind],
        status=gateway_pb2.SESSION_STATUS_OPEN,
        plan=facts.plan,
        candidate_name=personal.candidate_name,
        metadata=personal.metadata,
        turns=turns,
        max_turns=head.max_turns,
        created_at=head.created_at,
    )


def session_view(stream: history_pb2.GetStreamResponse, reader: history_pb2.Viewer | None) -> gateway_pb2.Session:
    """A session as the ledger has it now, and what is pending; what that says, where `reader` may read it."""
    view = opened_view(stream.head, stream.head.last_seq)
    if stream.head.sealed:
        view.status = gateway_pb2.SESSION_STATUS_COMPLETED
        view.completed_at.CopyFrom(stream.head.sealed_at)
    if stream.HasField("pending") and stream.pending.HasField("user_text"):
        running = stream.pending.state == history_pb2.TURN_STATE_RUNNING and stream.lease_left_ms > 0
        view.pending.CopyFrom(
            gateway_pb2.PendingTurn(
                turn_id=stream.pending.turn_id,
                request_id=stream.pending.request_id,
                text=stream.pending.user_text if reader and _may_read(reader, stream.head) else "",
                state=gateway_pb2.PendingTurn.STATE_RUNNING if running else gateway_pb2.PendingTurn.STATE_ABANDONED,
            )
        )
    return view


def _may_read(reader: history_pb2.Viewer, head: history_pb2.Head) -> bool:
    is_its_kind = reader.kind in (history_pb2.KIND_UNSPECIFIED, head.kind)
    return is_its_kind and (reader.any_owner or reader.owner_id == head.owner_id)


def messages_of(turns: Sequence[history_pb2.Turn]) -> list[gateway_pb2.Message]:
    """The message list, a view of turns: two messages share a seq, the candidate's before the interviewer's."""
    messages = []
    for turn in turns:
        if turn.HasField("user_text"):
            messages.append(
                gateway_pb2.Message(
                    seq=turn.seq,
                    turn_id=turn.turn_id,
                    role=gateway_pb2.Message.ROLE_CANDIDATE,
                    text=turn.user_text,
                    created_at=turn.begun_at,
                )
            )
        messages.append(
            gateway_pb2.Message(
                seq=turn.seq,
                turn_id=turn.turn_id,
                role=gateway_pb2.Message.ROLE_INTERVIEWER,
                text=turn.reply_text,
                created_at=turn.committed_at,
            )
        )
    return messages


def directory_entry(head: history_pb2.Head) -> session_pb2.Session:
    """What CreateSession needs, from the facts alone: so anybody can finish a half-made session."""
    facts = record_pb2.SessionFacts.FromString(head.facts)
    personal = record_pb2.PersonalFacts.FromString(head.personal_facts)
    return session_pb2.Session(
        session_id=head.session_id,
        owner_id=head.owner_id,
        tenant_id=head.tenant_id,
        kind=LISTED_KIND[head.kind],
        plan=facts.plan,
        versions=facts.versions,
        candidate_name=personal.candidate_name,
        metadata=personal.metadata,
        max_turns=head.max_turns,
        created_at=head.created_at,
    )


def start_request(head: history_pb2.Head) -> assessment_pb2.StartInterviewRequest:
    """What StartInterview needs, from the facts alone."""
    facts = record_pb2.SessionFacts.FromString(head.facts)
    personal = record_pb2.PersonalFacts.FromString(head.personal_facts)
    return assessment_pb2.StartInterviewRequest(
        session_id=head.session_id,
        plan=facts.plan,
        bank_version=facts.versions["bank"],
        candidate_name=personal.candidate_name,
    )


def assessed_turn(turn: history_pb2.Turn) -> assessment_pb2.AppliedTurn:
    """What the assessment folds of a committed turn."""
    return assessment_pb2.AppliedTurn(
        turn_id=turn.turn_id,
        seq=turn.seq,
        previous_digest=turn.previous_digest,
        digest=turn.digest,
        item_answered=turn.item_answered,
        item_asked=turn.item_asked,
    )


def answer_to_judge(
    session_id: str, turn_id: str, text: str, question: history_pb2.Turn, *, bank_version: str
) -> assessment_pb2.AssessAnswerRequest:
    """What a judge has to see of an answer: the question as it was asked, which is the reply of the turn before."""
    return assessment_pb2.AssessAnswerRequest(
        session_id=session_id,
        turn_id=turn_id,
        bank_version=bank_version,
        item_id=question.item_asked,
        question_text=question.reply_text,
        answer_text=text,
        degraded=bool(record_pb2.TurnRecord.FromString(question.record).degraded),
    )


def listed_turn(turn: history_pb2.Turn) -> session_pb2.AppliedTurn:
    """What the directory folds of a committed turn."""
    usage = record_pb2.TurnRecord.FromString(turn.record).usage
    return session_pb2.AppliedTurn(
        seq=turn.seq,
        previous_digest=turn.previous_digest,
        digest=turn.digest,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost_nano_usd=usage.cost_nano_usd,
    )
