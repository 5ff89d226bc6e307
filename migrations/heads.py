"""Which revision each context's schema must have, cheap enough for a service to ask: this does not import Alembic.

A revision is a number of four digits, each follows the one before, and a file is named after its own.
"""

from functools import cache
from pathlib import Path
from typing import Final

CONTEXTS: Final = ("session", "history", "assessment", "llm")


@cache
def head(context: str) -> str:
    """The newest revision of `context` in this distribution: `0001` where its last file is `v0001_ledger.py`."""
    versions = Path(__file__).with_name(context) / "versions"
    return max(path.name[1:5] for path in versions.glob("v[0-9][0-9][0-9][0-9]_*.py"))
