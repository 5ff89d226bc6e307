"""What the gateway reads from its environment.

`colloquy run` reads it too, to say what is wrong before it makes anything; so this opens nothing, and imports little.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from libs.identity import settings as identity
from libs.runtime.config import Address, Env
from libs.runtime.server import LEVELS


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it listens, whom it calls, whose tokens it takes, and what a new session pins.

    turn_budget_ms, chat_budget_ms: of a whole turn. min_turn_interval_ms: 0 for none.
    """

    listen: Address
    metrics_listen: Address
    targets: Mapping[str, str]
    turn_budget_ms: int
    chat_budget_ms: int
    max_turns: int
    min_turn_interval_ms: int
    tokens: identity.Settings
    log_level: str


def read(env: Env) -> Settings:
    """Read them; `env` reports what is wrong."""
    return Settings(
        listen=env.listen("COLLOQUY_GATEWAY_LISTEN", "127.0.0.1:50050"),
        metrics_listen=env.listen("COLLOQUY_GATEWAY_METRICS_LISTEN", "127.0.0.1:9471"),
        targets={
            "session": env.target("COLLOQUY_SESSION_TARGET", "127.0.0.1:50051"),
            "history": env.target("COLLOQUY_HISTORY_TARGET", "127.0.0.1:50052"),
            "assessment": env.target("COLLOQUY_ASSESSMENT_TARGET", "127.0.0.1:50053"),
            "llm": env.target("COLLOQUY_LLM_TARGET", "127.0.0.1:50054"),
        },
        turn_budget_ms=env.integer("COLLOQUY_TURN_BUDGET_MS", 2000, minimum=500),
        chat_budget_ms=env.integer("COLLOQUY_CHAT_BUDGET_MS", 15_000, minimum=500),
        max_turns=env.integer("COLLOQUY_MAX_TURNS", 100, minimum=2),
        min_turn_interval_ms=env.integer("COLLOQUY_MIN_TURN_INTERVAL_MS", 3000),
        tokens=identity.read(env),
        log_level=env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info"),
    )
