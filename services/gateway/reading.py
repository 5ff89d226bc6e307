"""Reads, and the end of a session: views of the ledger, which is always right.

The directory (session) says which sessions there are; how far along one is, the ledger says, so a client reads its own
writes although the directory folds a moment later.
"""

import base64
import binascii

from colloquy.gateway.v1 import gateway_pb2
from colloquy.history.v1 import history_pb2
from colloquy.session.v1 import session_pb2
from libs.runtime.client import call
from libs.runtime.errors import FieldViolation, InvalidField
from services.gateway import records
from services.gateway.contexts import Contexts
from services.gateway.projections import run_of
from services.gateway.settling import Settling

READ_CAP_MS = 2000
DEFAULT_PAGE = 50
MAX_PAGE = 200


class Reading:
    """GetSession, ListSessions, ListMessages, EndSession."""

    def __init__(self, contexts: Contexts, settling: Settling) -> None:
        self._contexts = contexts
        self._settling = settling

    async def session(
        self, session_id: str, viewer: history_pb2.Viewer, reader: history_pb2.Viewer | None
    ) -> gateway_pb2.Session:
        """One session; what is pending says what it says to a `reader` who may read it."""
        request = history_pb2.GetStreamRequest(session_id=session_id, viewer=viewer)
        return records.session_view(await call(self._contexts.history.GetStream, request, READ_CAP_MS), reader)

    async def sessions(
        self, viewer: history_pb2.Viewer, reader: history_pb2.Viewer | None, page_size: int, page_token: str
    ) -> gateway_pb2.ListSessionsResponse:
        """A page of the directory, each entry as the ledger has it."""
        listing = session_pb2.ListSessionsRequest(
            viewer=session_pb2.Viewer(
                owner_id=viewer.owner_id, any_owner=viewer.any_owner, kind=records.LISTED_KIND[viewer.kind]
            ),
            page_size=_page_size(page_size),
            page_token=page_token,
        )
        page = await call(self._contexts.session.ListSessions, listing, READ_CAP_MS)
        wanted = history_pb2.BatchGetStreamsRequest(
            session_ids=[entry.session_id for entry in page.sessions], viewer=viewer
        )
        found = await call(self._contexts.history.BatchGetStreams, wanted, READ_CAP_MS)
        return gateway_pb2.ListSessionsResponse(
            sessions=[records.session_view(stream, reader) for stream in found.streams],
            next_page_token=page.next_page_token,
        )

    async def messages(
        self, session_id: str, viewer: history_pb2.Viewer, page_size: int, page_token: str
    ) -> gateway_pb2.ListMessagesResponse:
        """A page of whole turns, the newest page first."""
        request = history_pb2.ListTurnsRequest(
            session_id=session_id,
            viewer=viewer,
            before_seq=_seq_of(page_token),
            max_turns=max(1, _page_size(page_size) // 2),
            newest=True,
        )
        page = await call(self._contexts.history.ListTurns, request, READ_CAP_MS)
        more = bool(page.turns) and page.turns[0].seq > 1
        return gateway_pb2.ListMessagesResponse(
            messages=records.messages_of(page.turns), next_page_token=_token_of(page.turns[0].seq) if more else ""
        )

    async def end(self, session_id: str, viewer: history_pb2.Viewer) -> gateway_pb2.Session:
        """Close a session: the seal is what counts, the projections follow."""
        request = history_pb2.SealStreamRequest(session_id=session_id, viewer=viewer)
        head = (await call(self._contexts.history.SealStream, request, READ_CAP_MS)).head
        if head.acked_rev < head.rev:
            self._settling.add(run_of(head))
        return records.session_view(history_pb2.GetStreamResponse(head=head), None)


def _page_size(asked: int) -> int:
    if not 0 <= asked <= MAX_PAGE:
        raise InvalidField([FieldViolation("page_size", f"From 1 to {MAX_PAGE}.")])
    return asked or DEFAULT_PAGE


def _token_of(seq: int) -> str:
    return base64.urlsafe_b64encode(f"before:{seq}".encode()).decode()


def _seq_of(token: str) -> int:
    """The seq before which the page ends; 0 without a token."""
    if not token:
        return 0
    try:
        name, _, seq = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if name == "before" and seq.isascii() and seq.isdecimal() and 1 < int(seq) < 2**31:
            return int(seq)
    except (binascii.Error, ValueError):
        pass
    raise InvalidField([FieldViolation("page_token", "Give the token of a page as it was, or none.")])
