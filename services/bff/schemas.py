"""The documents of the REST interface, for /openapi.json only: requests are decoded and replies rendered by hand, which
costs a tenth. A test holds the two together.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

_UUID = Field(json_schema_extra={"format": "uuid"})
_TIME = Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-31T09:30:00.123456Z"])
Uuid = Annotated[str, _UUID]
Time = Annotated[str, _TIME]
MessageText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        description="Counted in code points after NFC; not only white space or invisible characters, no NUL.",
    ),
]


class StartInterview(BaseModel):
    plan: str | None = Field(None, description="Which interview; the default one where it is left out.")
    candidate_name: str | None = Field(None, max_length=200)
    metadata: dict[str, str] | None = Field(None, description="Your own pairs: 16 at most, 4 KB in all.")


class SubmitMessage(BaseModel):
    message_text: MessageText
    in_reply_to: int | None = Field(
        None, ge=0, description="The `seq` of the message being answered; an older one than the last is a CONFLICT."
    )


class SubmitChatMessage(BaseModel):
    message: MessageText
    conversation_id: Uuid | None = Field(None, description="Where it is left out, a new conversation begins.")


class Pending(BaseModel):
    """A message that is accepted and not answered yet: send it again with its `request_id` as the key."""

    turn_id: Uuid
    request_id: Uuid
    message_text: str
    state: Literal["running", "abandoned"]


class _Session(BaseModel):
    session_id: Uuid
    status: Literal["open", "completed"]
    metadata: dict[str, str]
    turns: int
    max_turns: int
    created_at: Time
    completed_at: Time | None
    pending: Pending | None


class Interview(_Session):
    interview_id: Uuid = Field(description="The same as `session_id`.")
    plan: str
    candidate_name: str | None


class InterviewMessage(BaseModel):
    seq: int = Field(description="The turn's position, from 1; the two messages of a turn share it.")
    turn_id: Uuid
    role: Literal["interviewer", "candidate"]
    text: str
    created_at: Time


class OpenedInterview(Interview):
    message: InterviewMessage = Field(description="The opening.")


class Conversation(_Session):
    conversation_id: Uuid = Field(description="The same as `session_id`.")


class ChatMessage(BaseModel):
    seq: int = Field(description="The turn's position, from 1; the two messages of a turn share it.")
    turn_id: Uuid
    role: Literal["assistant", "user"]
    text: str
    created_at: Time


class _Page(BaseModel):
    next_page_token: str | None = Field(description="Give it as `page_token`; null on the last page.")


class Interviews(_Page):
    interviews: list[Interview] = Field(description="Newest first.")


class Conversations(_Page):
    conversations: list[Conversation] = Field(description="Newest first.")


class InterviewMessages(_Page):
    messages: list[InterviewMessage] = Field(description="Oldest first; the first page is the newest.")


class ChatMessages(_Page):
    messages: list[ChatMessage] = Field(description="Oldest first; the first page is the newest.")


class Reply(BaseModel):
    text: str


class Timing(BaseModel):
    budget_ms: int
    total_ms: float
    stages: dict[str, float] = Field(description="Milliseconds of each stage.")


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    cost_usd: str = Field(description="A decimal number.", examples=["0.000412000"])


class Turn(BaseModel):
    """A committed turn. Every response to one key has the same bytes."""

    session_id: Uuid
    turn_id: Uuid
    seq: int
    reply: Reply
    status: Literal["completed"]
    session_status: Literal["open", "completed"]
    degraded: list[str] = Field(description="What was degraded, the worst first; empty for a turn in order.")
    timing: Timing
    usage: Usage
    created_at: Time


class FieldError(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:colloquy:problem:turn-in-progress"])
    title: str
    status: int
    detail: str
    reason: str = Field(description="Stable: branch on it.", examples=["TURN_IN_PROGRESS"])
    correlation_id: str
    errors: list[FieldError] | None = Field(None, description="With INVALID_FIELD: every field at fault.")
    retry_after_ms: int | None = Field(None, description="When the same request is worth sending again.")
