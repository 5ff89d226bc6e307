"""Who a verified token speaks for. Values only: how a token is verified is in `verifier`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from libs.runtime.errors import Unauthenticated

MAX_NAME_CODE_POINTS = 255  # OpenID Connect Core 1.0, section 2: `sub` has at most 255 characters


class Role(StrEnum):
    """What an actor is in the conversations; `permissions` says what each may do."""

    CANDIDATE = "candidate"
    ASSESSOR = "assessor"
    OPERATOR = "operator"
    SERVICE = "service"


_ROLES: Mapping[str, Role] = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class Actor:
    """A caller whose token was verified; `subject` owns what it creates, `tenant` is empty where there is none."""

    subject: str
    roles: frozenset[Role]
    tenant: str = ""


def from_claims(claims: Mapping[str, object]) -> Actor:
    """The actor that verified claims describe. Roles of other systems are passed over.

    Raises:
        Unauthenticated: `sub`, `roles` or `tenant` has another shape than ours.
    """
    roles = claims.get("roles", [])
    if not isinstance(roles, list):
        raise Unauthenticated("The token's `roles` are not a list.")
    known = frozenset(_ROLES[role] for role in roles if isinstance(role, str) and role in _ROLES)
    tenant = claims.get("tenant")
    return Actor(_name(claims, "sub"), known, "" if tenant is None else _name(claims, "tenant"))


def bearer_token(authorization: str) -> str:
    """The token in an `authorization` header or metadata value (RFC 6750, section 2.1).

    Raises:
        Unauthenticated: it is absent, or of another scheme.
    """
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    return token


def _name(claims: Mapping[str, object], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_CODE_POINTS or not value.isprintable():
        raise Unauthenticated(f"The token's `{claim}` is not usable.")
    return value
