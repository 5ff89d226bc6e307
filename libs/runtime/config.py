"""Configuration from the environment: read once in `__main__`, everything wrong reported at once, then passed in.

Every variable has a `_FILE` twin that names a file holding its value (for secrets mounted by an orchestrator). An
empty value counts as unset. No other module reads `os.environ`.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

Address = tuple[str, int]
DATABASE_URL_FORM: Final = "must be postgresql://user:password@host:port/name, what is special in it %-encoded"
MAX_INTEGER: Final = 2**31 - 1
_T = TypeVar("_T")

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
# Of what SQLAlchemy and libpq read, both of which read it, what they read alike: neither / nor @ in a name or password.
_DATABASE_URL: Final = re.compile(
    r"postgres(ql)?://([^:/@]*(:[^/@]*)?@)?(\[[^/?@]+\]|[^/:?@]+)?(:\d*)?(/[^?@]*)?(\?.*)?"
)
# https://github.com/grpc/grpc/blob/master/doc/naming.md; gRPC takes what has another scheme for a name, and looks it up
# for ever.
_TARGET: Final = re.compile(
    r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):\S+|(\[[\da-fA-F:.%]+\]|[^\s/:,\[\]]+):\d{1,5}"
)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are sentences, one for each variable at fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class Env:
    """A reader that goes on after a problem, so that `check()` can report them all.

    A default of None makes a variable required. Until `check()` has passed, returned values may be placeholders.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._problems: list[str] = []

    def check(self) -> None:
        """Raises ConfigError if anything read so far was missing or wrong."""
        if self._problems:
            raise ConfigError(list(dict.fromkeys(self._problems)))  # a variable may be read for several purposes

    def given(self, name: str) -> str | None:
        """The value of `name`, also an empty one; None where it is not set at all."""
        return self._raw(name) if name in self._variables or f"{name}_FILE" in self._variables else None

    def reject(self, name: str, problem: str) -> None:
        """Report what whoever uses the value finds wrong with it."""
        self._problems.append(f"{name} {problem}")

    def text(self, name: str, default: str | None = None, *, otherwise: str = "") -> str:
        """The value of `name`, else of the more general variable `otherwise`, else the default."""
        value = self._raw(name) or (self._raw(otherwise) if otherwise else "")
        if value:
            return value
        if default is None:
            self._problems.append(f"{name} is not set" + (f" (nor {otherwise})" if otherwise else ""))
        return default or ""

    def secret(self, name: str, default: str | None = None, *, otherwise: str = "") -> str:
        """Like `text`; marks, where it is read, a value that must never be printed (a key, a DSN)."""
        return self.text(name, default, otherwise=otherwise)

    def integer(self, name: str, default: int | None = None, *, minimum: int = 0) -> int:
        """A whole number, from `minimum` to what our contracts carry (int32)."""
        value = self.text(name, None if default is None else str(default))
        try:
            number = int(value) if value else minimum
        except ValueError:
            return self._wrong(name, f"must be a whole number, not {value!r}", minimum)
        if number > MAX_INTEGER:
            return self._wrong(name, f"must be at most {MAX_INTEGER}, not {number}", minimum)
        return number if number >= minimum else self._wrong(name, f"must be at least {minimum}, not {number}", minimum)

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self.text(name, default)
        if value and value not in choices:
            return self._wrong(name, f"must be one of {', '.join(choices)}, not {value!r}", choices[0])
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.text(name, "1" if default else "0").lower()
        if value not in _TRUE | _FALSE:
            return self._wrong(name, f"must be 1 or 0, not {value!r}", default)
        return value in _TRUE

    def url(self, name: str, default: str | None = None) -> str:
        """An http or https URL. A wrong one is not shown, as it may hold a password."""
        value = self.text(name, default)
        return self._wrong(name, "must be an http or https URL", value) if value and not _is_web_url(value) else value

    def database_url(self, name: str, *, otherwise: str) -> str:
        """PostgreSQL's URL, from `name` or else the more general variable; a secret."""
        value = self.secret(name, otherwise=otherwise)
        if not value or _DATABASE_URL.fullmatch(value):
            return value
        source = name if self._raw(name) else otherwise
        return self._wrong(source, DATABASE_URL_FORM, value)

    def target(self, name: str, default: str) -> str:
        """A gRPC target to call: `host:port`, or whatever follows a scheme that gRPC knows."""
        value = self.text(name, default)
        if _TARGET.fullmatch(value):
            return value
        return self._wrong(name, f"must be host:port or another gRPC target, not {value!r}", value)

    def listen(self, name: str, default: str, *, told: bool = False) -> Address:
        """A `host:port` to listen on; anything but loopback needs COLLOQUY_INSECURE_LISTEN=1, as there is no TLS.

        Args:
            told: others are told of the port beforehand, so that it cannot be 0, any free one.
        """
        value = self.text(name, default)
        host, _, port = value.rpartition(":")
        host = host.strip("[]")
        if not host or not port.isdecimal() or int(port) > 65535:
            return self._wrong(name, f"must be host:port, not {value!r}", ("127.0.0.1", 0))
        if not _is_loopback(host) and self._raw("COLLOQUY_INSECURE_LISTEN").lower() not in _TRUE:
            problem = f"is {value}, not a loopback address: set COLLOQUY_INSECURE_LISTEN=1 if a proxy has the TLS"
            return self._wrong(name, problem, ("127.0.0.1", 0))
        if told and int(port) == 0:
            return self._wrong(name, "must name a port that the others can be told", ("127.0.0.1", 0))
        return host, int(port)

    def _raw(self, name: str) -> str:
        value, path = self._variables.get(name, ""), self._variables.get(f"{name}_FILE", "")
        if not path:
            return value
        if value:
            return self._wrong(name, f"and {name}_FILE are both set", "")
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            return self._wrong(f"{name}_FILE", f"cannot be read: {path}: {error.__class__.__name__}", "")

    def _wrong(self, name: str, problem: str, placeholder: _T) -> _T:
        self.reject(name, problem)
        return placeholder


def address_of(listen: Address) -> str:
    """`host:port`, an IPv6 host in brackets."""
    host, port = listen
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_web_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:  # no port, or no address in brackets
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
