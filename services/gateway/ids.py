"""Ids in requests: any spelling of a UUID is understood, one is passed on."""

import uuid

from libs.runtime.errors import Malformed


def canonical(text: str, field: str) -> str:
    """The canonical form of an id, so that every spelling of it is the same request.

    Raises:
        Malformed: it is no UUID.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Malformed(f"{field} is not a UUID.") from None
