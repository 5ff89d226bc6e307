"""What the history service reads from its environment.

`colloquy run` reads it too, to say what is wrong before it makes anything; so this opens nothing, and imports little.
"""

from dataclasses import dataclass, field

from libs.runtime.config import Address, Env
from libs.runtime.server import LEVELS


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it listens, and its tables."""

    listen: Address
    metrics_listen: Address
    database_url: str = field(repr=False)
    log_level: str


def read(env: Env) -> Settings:
    """Read them; `env` reports what is wrong."""
    return Settings(
        listen=env.listen("COLLOQUY_HISTORY_LISTEN", "127.0.0.1:50052"),
        metrics_listen=env.listen("COLLOQUY_HISTORY_METRICS_LISTEN", "127.0.0.1:9473"),
        database_url=env.database_url("COLLOQUY_HISTORY_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL"),
        log_level=env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info"),
    )
