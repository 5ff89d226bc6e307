"""What the BFF reads from its environment.

`colloquy run` reads it too, to say what is wrong before it makes anything; so this opens nothing, and imports little.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from libs.identity import settings as identity
from libs.runtime.config import Address, Env
from libs.runtime.server import LEVELS

# As a browser sends it (RFC 6454, section 6.2): any other text would be compared with what never comes.
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it listens, whom it calls, whose tokens it takes, how long a turn may last, and whose pages may call it.

    turn_budget_ms, chat_budget_ms: of a whole turn. cors_origins: `*` among them means any.
    """

    listen: Address
    metrics_listen: Address
    gateway_target: str
    turn_budget_ms: int
    chat_budget_ms: int
    cors_origins: Sequence[str]
    tokens: identity.Settings
    log_level: str


def read(env: Env) -> Settings:
    """Read them; `env` reports what is wrong."""
    return Settings(
        listen=env.listen("COLLOQUY_BFF_LISTEN", "127.0.0.1:8080"),
        metrics_listen=env.listen("COLLOQUY_BFF_METRICS_LISTEN", "127.0.0.1:9470"),
        gateway_target=env.target("COLLOQUY_GATEWAY_TARGET", "127.0.0.1:50050"),
        turn_budget_ms=env.integer("COLLOQUY_TURN_BUDGET_MS", 2000, minimum=200),
        chat_budget_ms=env.integer("COLLOQUY_CHAT_BUDGET_MS", 15_000, minimum=200),
        cors_origins=_origins(env, "COLLOQUY_CORS_ORIGINS"),
        tokens=identity.read(env),
        log_level=env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info"),
    )


def _origins(env: Env, name: str) -> list[str]:
    listed = [origin.strip() for origin in env.text(name, "").split(",") if origin.strip()]
    for origin in listed:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            env.reject(
                name, f"must be * or scheme://host[:port] in lower case, several comma-separated, not {origin!r}"
            )
    return listed
