"""Which route is whose, and how each is described. The most frequent come first: matching goes down the list."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from libs.runtime.errors import Unavailable
from services.bff import schemas
from services.bff.chat import Chat
from services.bff.conversations import Conversations
from services.bff.documentation import ERASURE, ID, PAGING, key, operation
from services.bff.exchange import Exchange
from services.bff.gateway import Gateway
from services.bff.interviews import Interviews

Handler = Callable[[Exchange], Awaitable[Response]]

INTERVIEWS = "/api/v1/interviews"
CHAT = "/api/v1/chat"


@dataclass(frozen=True, slots=True)
class Route:
    """A method of a path. `described` are FastAPI's keyword arguments for the OpenAPI document."""

    method: str
    path: str
    handler: Handler
    name: str
    described: dict[str, Any]


def interviews(common: Conversations) -> list[Route]:
    """What candidates, assessors and operators do with interviews."""
    own = Interviews(common)
    return [
        Route(
            "POST",
            f"{INTERVIEWS}/{{id}}/messages",
            own.submit,
            "submit_message",
            operation(
                "Answer the interviewer",
                schemas.Turn,
                body=schemas.SubmitMessage,
                parameters=[ID, key(required=True)],
                streams=True,
            ),
        ),
        Route(
            "GET",
            f"{INTERVIEWS}/{{id}}/messages",
            common.messages,
            "list_messages",
            operation("Read what was said", schemas.InterviewMessages, parameters=[ID, *PAGING]),
        ),
        Route(
            "GET",
            f"{INTERVIEWS}/{{id}}",
            common.get,
            "get_interview",
            operation("Read one interview", schemas.Interview, parameters=[ID]),
        ),
        Route(
            "POST",
            f"{INTERVIEWS}/{{id}}/end",
            common.end,
            "end_interview",
            operation("Close an interview", schemas.Interview, parameters=[ID]),
        ),
        Route(
            "DELETE",
            f"{INTERVIEWS}/{{id}}",
            common.erase,
            "erase_interview",
            operation(
                "Erase an interview",
                None,
                status=204,
                parameters=[ID],
                description="For an operator: it is evidence, so its candidate cannot take it back." + ERASURE,
            ),
        ),
        Route(
            "POST",
            INTERVIEWS,
            own.start,
            "start_interview",
            operation(
                "Open an interview",
                schemas.OpenedInterview,
                status=201,
                body=schemas.StartInterview,
                parameters=[key(required=False)],
            ),
        ),
        Route(
            "GET",
            INTERVIEWS,
            common.list,
            "list_interviews",
            operation("List interviews", schemas.Interviews, parameters=PAGING),
        ),
    ]


def chat(common: Conversations) -> list[Route]:
    """What users do with chats."""
    return [
        Route(
            "POST",
            CHAT,
            Chat(common).submit,
            "submit_chat_message",
            operation(
                "Say something, in a conversation or a new one",
                schemas.Turn,
                body=schemas.SubmitChatMessage,
                parameters=[key(required=False)],
                streams=True,
            ),
        ),
        Route(
            "GET",
            f"{CHAT}/{{id}}/messages",
            common.messages,
            "list_chat_messages",
            operation("Read what was said", schemas.ChatMessages, parameters=[ID, *PAGING]),
        ),
        Route(
            "GET",
            f"{CHAT}/{{id}}",
            common.get,
            "get_conversation",
            operation("Read one conversation", schemas.Conversation, parameters=[ID]),
        ),
        Route(
            "DELETE",
            f"{CHAT}/{{id}}",
            common.erase,
            "erase_conversation",
            operation(
                "Erase a conversation",
                None,
                status=204,
                parameters=[ID],
                description="For its owner, or an operator." + ERASURE,
            ),
        ),
        Route(
            "GET",
            CHAT,
            common.list,
            "list_conversations",
            operation("List conversations", schemas.Conversations, parameters=PAGING),
        ),
    ]


class Probes:
    """What an orchestrator asks, without a token."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here: the gateway can be called, and we are not on our way out."""
        return self._gateway.ready and not self.draining

    async def livez(self, _: Exchange) -> Response:
        """The loop turns."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, _: Exchange) -> Response:
        if not self.ready:
            raise Unavailable("Not ready.")
        return Response("ready\n", media_type="text/plain")
