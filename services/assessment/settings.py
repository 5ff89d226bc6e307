"""What the assessment service reads from its environment.

`colloquy run` reads it too, to say what is wrong before it makes anything; so this opens nothing, and imports little.
"""

from dataclasses import dataclass, field

from libs.runtime.config import Address, Env
from libs.runtime.server import LEVELS


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it listens, its tables, and who judges."""

    listen: Address
    metrics_listen: Address
    database_url: str = field(repr=False)
    llm_target: str
    log_level: str


def read(env: Env) -> Settings:
    """Read them; `env` reports what is wrong."""
    return Settings(
        listen=env.listen("COLLOQUY_ASSESSMENT_LISTEN", "127.0.0.1:50053"),
        metrics_listen=env.listen("COLLOQUY_ASSESSMENT_METRICS_LISTEN", "127.0.0.1:9474"),
        database_url=env.database_url("COLLOQUY_ASSESSMENT_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL"),
        llm_target=env.target("COLLOQUY_LLM_TARGET", "127.0.0.1:50054"),
        log_level=env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info"),
    )
