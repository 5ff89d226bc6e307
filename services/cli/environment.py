"""What a stack on this machine runs with: ports, keys, DSNs, as the environment of its processes.

`colloquy run` writes it to `<data>/run.env`; the other commands read that file when their environment names nothing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libs.identity.keys import generate_keypair
from libs.runtime.config import Env

DATA = Path(".data")
PREFIX = "COLLOQUY_"
_OF_THE_TESTS = f"{PREFIX}TEST_"


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the product: its name on the command line, its module, and the default port of its metrics.

    tier: one calls those of lower tiers only.
    """

    name: str
    module: str
    variable: str
    tier: int
    metrics_port: int

    @property
    def metrics_listen(self) -> str:
        return f"{PREFIX}{self.variable}_METRICS_LISTEN"


@dataclass(frozen=True, slots=True)
class Service(Program):
    """One that others call, and its default port."""

    port: int

    @property
    def listen(self) -> str:
        return f"{PREFIX}{self.variable}_LISTEN"

    @property
    def target(self) -> str:
        return f"{PREFIX}{self.variable}_TARGET"


SERVICES = (
    Service("history", "services.history", "HISTORY", 2, 9473, 50052),
    Service("session", "services.session", "SESSION", 2, 9472, 50051),
    Service("llm-gateway", "services.llm_gateway", "LLM", 1, 9475, 50054),
    Service("assessment", "services.assessment", "ASSESSMENT", 2, 9474, 50053),
    Service("gateway", "services.gateway", "GATEWAY", 3, 9471, 50050),
    Service("bff", "services.bff", "BFF", 4, 9470, 8080),
)
VERIFIER = Program("verifier", "services.verifier", "VERIFIER", 4, 9476)
PROGRAMS: tuple[Program, ...] = (*SERVICES, VERIFIER)
SIMULATOR_LISTEN = f"{PREFIX}SIMULATOR_LISTEN"
SIMULATOR_DEFAULT = "127.0.0.1:8090"
PRIVATE_KEY_FILE = f"{PREFIX}JWT_PRIVATE_KEY_FILE"
PUBLIC_KEY_FILE = f"{PREFIX}JWT_PUBLIC_KEY_FILE"


def is_set(given: Mapping[str, str], name: str) -> bool:
    """Whether a variable has a value, or its `_FILE` twin names one; empty counts as unset."""
    return bool(given.get(name) or given.get(f"{name}_FILE"))


def with_defaults(given: Mapping[str, str], data: Path) -> dict[str, str]:
    """The environment of a stack: what is given, and the default for the rest, with keys made at the first start.

    Raises:
        ConfigError: an address is to be read from a file and cannot be.
    """
    made, env = dict(given), Env(given)
    for name, default in addresses().items():
        made[name] = env.text(name, default)
        made.pop(f"{name}_FILE", None)
    env.check()
    for service in SERVICES:
        if service.name != "bff" and not is_set(given, service.target):
            made[service.target] = made[service.listen]
    if not names_keys(given):
        private, public = _keys(data)
        made[PRIVATE_KEY_FILE], made[PUBLIC_KEY_FILE] = str(private), str(public)
    return made


def addresses() -> dict[str, str]:
    """The variables that hold an address to listen on, each with its default."""
    return {
        SIMULATOR_LISTEN: SIMULATOR_DEFAULT,
        **{service.listen: f"127.0.0.1:{service.port}" for service in SERVICES},
        **{program.metrics_listen: f"127.0.0.1:{program.metrics_port}" for program in PROGRAMS},
    }


def names_keys(environment: Mapping[str, str]) -> bool:
    """Whether it is configured what verifies tokens, so that no keys are made."""
    return any(is_set(environment, name) for name in ("COLLOQUY_JWKS_URL", "COLLOQUY_JWT_PUBLIC_KEY"))


def uses_simulator(environment: Mapping[str, str]) -> bool:
    """Whether no provider is configured, so that the simulator stands in for one."""
    return not any(is_set(environment, name) for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"))


def write(environment: Mapping[str, str], data: Path) -> None:
    """Keep what a stack runs with for the other commands; it holds secrets.

    A line holds one value, so a value of several lines (a key) gets a file of its own, named by its `_FILE` twin.
    """
    kept = {}
    for name, value in environment.items():
        if not value or not name.startswith((PREFIX, "OPENAI_")) or name.startswith(_OF_THE_TESTS):
            continue
        if value.splitlines() == [value]:
            kept[name] = value
        else:
            file = (data / "run" / name).resolve()
            _write_private(file, value)
            kept[f"{name}_FILE"] = str(file)
    _write_private(data / "run.env", "".join(f"{name}={value}\n" for name, value in sorted(kept.items())))


def read(given: Mapping[str, str], data: Path) -> dict[str, str]:
    """The given environment; where it names nothing of ours, with what the last `colloquy run` wrote.

    The two are never mixed: half of one stack and half of another would be neither.
    """
    if any(value and name.startswith(PREFIX) and not name.startswith(_OF_THE_TESTS) for name, value in given.items()):
        return dict(given)
    try:
        lines = (data / "run.env").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return dict(given)
    return {**given, **dict(line.split("=", 1) for line in lines if "=" in line)}


def _keys(data: Path) -> tuple[Path, Path]:
    private, public = (data / "keys" / "private.pem").resolve(), (data / "keys" / "public.pem").resolve()
    if not (private.exists() and public.exists()):
        pair = generate_keypair()
        private.parent.mkdir(parents=True, exist_ok=True)
        _write_private(private, pair.private_pem)
        _write_private(public, pair.public_pem)
    return private, public


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
