"""What each role may do, row by row."""

import pytest

from libs.identity.actor import Actor, Role
from libs.identity.permissions import Action, Kind, Scope, authorize, meant
from libs.runtime.errors import RoleMissing

OWN = Scope("alice")
ANYBODY = Scope("alice", any_owner=True)

# (action, kind) -> what each role gets; a role that is not named gets RoleMissing.
EXPECTED: dict[tuple[Action, Kind], dict[Role, Scope]] = {
    **{
        (action, kind): {Role.CANDIDATE: OWN, Role.SERVICE: OWN}
        for action in (Action.START, Action.SUBMIT)
        for kind in Kind
    },
    (Action.READ_STATE, Kind.ANY): {Role.CANDIDATE: OWN, Role.SERVICE: OWN, Role.OPERATOR: ANYBODY},
    (Action.READ_STATE, Kind.INTERVIEW): {
        Role.CANDIDATE: OWN,
        Role.SERVICE: OWN,
        Role.OPERATOR: ANYBODY,
        Role.ASSESSOR: ANYBODY,
    },
    (Action.READ_STATE, Kind.CHAT): {Role.CANDIDATE: OWN, Role.SERVICE: OWN, Role.OPERATOR: ANYBODY},
    (Action.READ_MESSAGES, Kind.ANY): {Role.CANDIDATE: OWN, Role.SERVICE: OWN},
    (Action.READ_MESSAGES, Kind.INTERVIEW): {Role.CANDIDATE: OWN, Role.SERVICE: OWN, Role.ASSESSOR: ANYBODY},
    (Action.READ_MESSAGES, Kind.CHAT): {Role.CANDIDATE: OWN, Role.SERVICE: OWN},
    **{(Action.END, kind): {Role.CANDIDATE: OWN, Role.SERVICE: OWN, Role.OPERATOR: ANYBODY} for kind in Kind},
    (Action.ERASE, Kind.ANY): {Role.OPERATOR: ANYBODY},
    (Action.ERASE, Kind.INTERVIEW): {Role.OPERATOR: ANYBODY},
    (Action.ERASE, Kind.CHAT): {Role.CANDIDATE: OWN, Role.SERVICE: OWN, Role.OPERATOR: ANYBODY},
    (Action.READ_REPORT, Kind.ANY): {},
    (Action.READ_REPORT, Kind.INTERVIEW): {Role.ASSESSOR: ANYBODY},
    (Action.READ_REPORT, Kind.CHAT): {},
    **{(Action.OPERATE, kind): {Role.OPERATOR: ANYBODY} for kind in Kind},
}


def actor(*roles: Role) -> Actor:
    return Actor("alice", frozenset(roles))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("action", Action)
def test_a_role_may_do_what_the_table_says_and_no_more(action: Action, kind: Kind, role: Role) -> None:
    expected = EXPECTED[action, kind].get(role)

    if expected is None:
        with pytest.raises(RoleMissing):
            authorize(actor(role), action, kind)
    else:
        assert authorize(actor(role), action, kind) == expected


@pytest.mark.parametrize("action", Action)
def test_without_a_role_nothing_is_allowed(action: Action) -> None:
    with pytest.raises(RoleMissing):
        authorize(actor(), action, Kind.INTERVIEW)


def test_a_service_acts_for_the_owner_it_names_and_for_nobody_else() -> None:
    assert authorize(actor(Role.SERVICE), Action.SUBMIT, Kind.CHAT, owner_id="bob") == Scope("bob")


@pytest.mark.parametrize("action", [Action.READ_STATE, Action.READ_MESSAGES, Action.READ_REPORT])
def test_an_assessor_who_names_no_kind_means_interviews(action: Action) -> None:
    assert meant(actor(Role.ASSESSOR), action, Kind.ANY) is Kind.INTERVIEW


def test_who_erases_and_names_no_kind_means_what_he_may_erase() -> None:
    assert meant(actor(Role.CANDIDATE), Action.ERASE, Kind.ANY) is Kind.CHAT
    assert meant(actor(Role.OPERATOR), Action.ERASE, Kind.ANY) is Kind.ANY
    assert meant(actor(Role.SERVICE, Role.OPERATOR), Action.ERASE, Kind.ANY, owner_id="bob") is Kind.CHAT


@pytest.mark.parametrize("kind", [Kind.INTERVIEW, Kind.CHAT])
def test_a_kind_that_is_named_is_meant(kind: Kind) -> None:
    assert meant(actor(Role.ASSESSOR), Action.READ_STATE, kind) is kind


def test_who_may_read_both_kinds_means_any() -> None:
    assert meant(actor(Role.CANDIDATE, Role.ASSESSOR), Action.READ_STATE, Kind.ANY) is Kind.ANY


def test_a_named_owner_narrows_what_an_operator_sees() -> None:
    both = actor(Role.SERVICE, Role.OPERATOR)

    assert authorize(both, Action.READ_STATE, Kind.ANY, owner_id="bob") == Scope("bob")


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.ASSESSOR, Role.OPERATOR])
def test_nobody_but_a_service_names_another_owner(role: Role) -> None:
    with pytest.raises(RoleMissing):
        authorize(actor(role), Action.READ_STATE, Kind.INTERVIEW, owner_id="bob")


def test_naming_oneself_is_nothing_special() -> None:
    assert authorize(actor(Role.CANDIDATE), Action.READ_STATE, Kind.CHAT, owner_id="alice") == OWN


def test_the_wider_of_two_roles_counts() -> None:
    assert authorize(actor(Role.CANDIDATE, Role.ASSESSOR), Action.READ_MESSAGES, Kind.INTERVIEW) == ANYBODY
    assert authorize(actor(Role.CANDIDATE, Role.ASSESSOR), Action.READ_MESSAGES, Kind.CHAT) == OWN
