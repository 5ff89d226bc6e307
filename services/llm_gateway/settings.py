"""What llm-gateway reads from its environment.

`colloquy run` reads it too, to say what is wrong before it makes anything; so this opens nothing, and imports little.
"""

from dataclasses import dataclass, field
from typing import Final

from libs.runtime.config import Address, Env
from libs.runtime.server import LEVELS

OPENAI_URL: Final = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where it listens, its tables, and the model."""

    listen: Address
    metrics_listen: Address
    database_url: str = field(repr=False)
    base_url: str
    api_key: str = field(repr=False)
    model: str
    log_level: str


def read(env: Env) -> Settings:
    """Read them; `env` reports what is wrong."""
    base_url = env.url("OPENAI_BASE_URL", OPENAI_URL)
    return Settings(
        listen=env.listen("COLLOQUY_LLM_LISTEN", "127.0.0.1:50054"),
        metrics_listen=env.listen("COLLOQUY_LLM_METRICS_LISTEN", "127.0.0.1:9475"),
        database_url=env.database_url("COLLOQUY_LLM_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL"),
        base_url=base_url,
        # An endpoint of one's own may want no key; the SDK wants one.
        api_key=env.secret("OPENAI_API_KEY", None if base_url == OPENAI_URL else "none"),
        model=env.text("COLLOQUY_LLM_MODEL", "gpt-4o-mini"),
        log_level=env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info"),
    )
