"""Where conversations are in the REST interface."""

INTERVIEWS, CHAT = "/api/v1/interviews", "/api/v1/chat"
_ROOTS = {"interview": INTERVIEWS, "chat": CHAT}


def session(kind: str, session_id: str) -> str:
    """One session."""
    return f"{_ROOTS[kind]}/{session_id}"


def messages(kind: str, session_id: str) -> str:
    """What was said in it."""
    return f"{session(kind, session_id)}/messages"


def saying(kind: str, session_id: str) -> str:
    """Where the next message goes; a chat's session is in the body."""
    return messages(kind, session_id) if kind == "interview" else CHAT
