"""What the verifier reads from its environment.

`colloquy run` reads it too, to say what is wrong before it makes anything; so this opens nothing, and imports little.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from libs.runtime.config import Address, Env
from libs.runtime.server import LEVELS
from migrations.heads import CONTEXTS


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it shows its metrics, and the tables of every context."""

    metrics_listen: Address
    database_urls: Mapping[str, str] = field(repr=False)
    log_level: str


def read(env: Env) -> Settings:
    """Read them; `env` reports what is wrong."""
    return Settings(
        metrics_listen=env.listen("COLLOQUY_VERIFIER_METRICS_LISTEN", "127.0.0.1:9476"),
        database_urls={
            context: env.database_url(f"COLLOQUY_{context.upper()}_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL")
            for context in CONTEXTS
        },
        log_level=env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info"),
    )
