"""Tokens made by us: for `colloquy token`, for services that call each other, and for tests."""

import time
from collections.abc import Iterable

import jwt

from libs.identity import keys
from libs.identity.actor import Role

DEFAULT_ISSUER = "colloquy"
DEFAULT_AUDIENCE = "colloquy"
DEFAULT_TTL_SECONDS = 12 * 3600


def mint(
    private_key_pem: str,
    subject: str,
    roles: Iterable[Role],
    *,
    ttl_seconds: int = DEFAULT_TTL_SECONDS,
    tenant: str = "",
    issuer: str = DEFAULT_ISSUER,
    audience: str = DEFAULT_AUDIENCE,
    now: float | None = None,
) -> str:
    """A signed token for `subject`, valid for `ttl_seconds` from `now` (seconds since the epoch; None: the clock).

    Raises:
        UnusableKeyError: the key cannot be read.
    """
    issued = int(time.time() if now is None else now)
    claims: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "roles": sorted(role.value for role in set(roles)),
        "iat": issued,
        "exp": issued + ttl_seconds,
    }
    if tenant:
        claims["tenant"] = tenant
    signing = keys.private_key(private_key_pem)
    return jwt.encode(claims, signing.key, algorithm=signing.algorithm)
