"""What each role may do, as one table. Pure; the gateway asks it before it calls anybody.

Nothing here says whether a session is the caller's: whoever may act for its owner only gets a scope with that owner,
and history answers NOT_FOUND for what is absent and for what is not theirs alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from libs.identity.actor import Actor, Role
from libs.runtime.errors import RoleMissing


class Action(StrEnum):
    """What can be asked of a conversation."""

    START = "start"
    SUBMIT = "submit"
    READ_STATE = "read_state"
    READ_MESSAGES = "read_messages"
    END = "end"
    ERASE = "erase"
    READ_REPORT = "read_report"
    OPERATE = "operate"


class Kind(StrEnum):
    """Which conversations a request means; ANY where the caller does not say."""

    ANY = "any"
    INTERVIEW = "interview"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Scope:
    """On whose behalf to act: on sessions of `owner_id` only, or of anybody (of the kind that was asked for)."""

    owner_id: str
    any_owner: bool = False


_NOBODY: frozenset[Role] = frozenset()
_OWNERS = frozenset({Role.CANDIDATE, Role.SERVICE})
_OPERATOR = frozenset({Role.OPERATOR})
_ASSESSOR = frozenset({Role.ASSESSOR})

# Who may do it to sessions of their own (for `service`: of the owner it names).
_OWN: Mapping[Action, Mapping[Kind, frozenset[Role]]] = {
    Action.START: dict.fromkeys(Kind, _OWNERS),
    Action.SUBMIT: dict.fromkeys(Kind, _OWNERS),
    Action.READ_STATE: dict.fromkeys(Kind, _OWNERS),
    Action.READ_MESSAGES: dict.fromkeys(Kind, _OWNERS),
    Action.END: dict.fromkeys(Kind, _OWNERS),
    Action.ERASE: {Kind.CHAT: _OWNERS},  # an interview is evidence: its candidate cannot take it back
    Action.READ_REPORT: {},
    Action.OPERATE: {},
}

# Who may do it to anybody's sessions. ANY needs the right to both kinds.
_ANYBODYS: Mapping[Action, Mapping[Kind, frozenset[Role]]] = {
    Action.START: {},
    Action.SUBMIT: {},
    Action.READ_STATE: {Kind.ANY: _OPERATOR, Kind.INTERVIEW: _OPERATOR | _ASSESSOR, Kind.CHAT: _OPERATOR},
    Action.READ_MESSAGES: {Kind.INTERVIEW: _ASSESSOR},
    Action.END: dict.fromkeys(Kind, _OPERATOR),
    Action.ERASE: dict.fromkeys(Kind, _OPERATOR),
    Action.READ_REPORT: {Kind.INTERVIEW: _ASSESSOR},
    Action.OPERATE: dict.fromkeys(Kind, _OPERATOR),  # how a session stands and how it is repaired, not what it says
}


def meant(actor: Actor, action: Action, kind: Kind, owner_id: str = "") -> Kind:
    """What a request is about: the kind it names; without one ANY, or the one kind to which the actor may do it."""

    def allowed(one: Kind) -> bool:
        tables = (_OWN,) if owner_id else (_OWN, _ANYBODYS)
        return any(actor.roles & table[action].get(one, _NOBODY) for table in tables)

    if kind is not Kind.ANY or allowed(Kind.ANY):
        return kind
    kinds = [one for one in (Kind.INTERVIEW, Kind.CHAT) if allowed(one)]
    return kinds[0] if len(kinds) == 1 else kind


def authorize(actor: Actor, action: Action, kind: Kind = Kind.ANY, owner_id: str = "") -> Scope:
    """The sessions on which `actor` may carry out `action`.

    Args:
        kind: what the request expects the session to be.
        owner_id: the owner that the caller named; empty for the caller itself.

    Raises:
        RoleMissing: no role of the actor allows it, or it names another owner without the role `service`.
    """
    if owner_id and owner_id != actor.subject and Role.SERVICE not in actor.roles:
        raise RoleMissing("Only the role `service` may name another owner.")
    if not owner_id and actor.roles & _ANYBODYS[action].get(kind, _NOBODY):
        return Scope(actor.subject, any_owner=True)
    if actor.roles & _OWN[action].get(kind, _NOBODY):
        return Scope(owner_id or actor.subject)
    raise RoleMissing
