"""Tokens: what is minted verifies, and nothing else does."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from libs.identity import keys
from libs.identity.actor import Actor, Role, bearer_token
from libs.identity.minting import mint
from libs.identity.verifier import Remembered, StaticKey, Verifier
from libs.runtime.errors import Unauthenticated

PAIR = keys.generate_keypair()
VERIFIER = Verifier(StaticKey(keys.public_key(PAIR.public_pem)), "colloquy", "colloquy")
IN_2100 = 4_102_444_800


def pem_of(key: keys.Signing) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem_of(key: keys.Signing) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signed(claims: dict[str, object], headers: dict[str, object] | None = None) -> str:
    return jwt.encode(claims, keys.private_key(PAIR.private_pem).key, algorithm="EdDSA", headers=headers)


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    all_claims = {"iss": "colloquy", "aud": "colloquy", "sub": "alice", "roles": ["candidate"], "exp": now + 60}
    return {name: value for name, value in {**all_claims, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["EdDSA", "ES256", "RS256"],
)
async def test_a_minted_token_names_its_subject_roles_and_tenant(key: keys.Signing) -> None:
    token = mint(pem_of(key), "alice", [Role.CANDIDATE, Role.OPERATOR], tenant="acme")
    verifier = Verifier(StaticKey(keys.public_key(public_pem_of(key))), "colloquy", "colloquy")

    actor = await verifier.verify(token)

    assert actor == Actor("alice", frozenset({Role.CANDIDATE, Role.OPERATOR}), "acme")


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"exp": 1},
        {"exp": "soon"},
        {"iss": "somebody"},
        {"iss": None},
        {"aud": "somebody"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "  "},
        {"sub": "a\x00b"},
        {"sub": "a" * 256},
        {"sub": 7},
        {"roles": "candidate"},
        {"tenant": ""},
        {"tenant": 7},
        {"nbf": IN_2100},
        {"iat": IN_2100},
    ],
    ids=str,
)
async def test_a_token_whose_claims_are_not_in_order_is_refused(changes: dict[str, object]) -> None:
    token = signed(claims(**changes))

    with pytest.raises(Unauthenticated):
        await VERIFIER.verify(token)


async def test_roles_of_other_systems_are_passed_over() -> None:
    token = signed(claims(roles=["candidate", "root", 7]))

    assert (await VERIFIER.verify(token)).roles == {Role.CANDIDATE}


async def test_a_token_without_roles_names_an_actor_that_may_do_nothing() -> None:
    assert (await VERIFIER.verify(signed(claims(roles=None)))).roles == frozenset()


async def test_an_audience_may_be_one_of_many() -> None:
    assert (await VERIFIER.verify(signed(claims(aud=["other", "colloquy"])))).subject == "alice"


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c", "a.b.c.d", "é.b.c", "." * 9000, "\ud800"], ids=repr)
async def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        await VERIFIER.verify(token)


async def test_an_expired_token_is_refused_with_its_reason() -> None:
    token = mint(PAIR.private_pem, "alice", [Role.CANDIDATE], ttl_seconds=60, now=time.time() - 3600)

    with pytest.raises(Unauthenticated, match="expired"):
        await VERIFIER.verify(token)


async def test_a_token_of_another_key_is_refused() -> None:
    token = mint(keys.generate_keypair().private_pem, "alice", [Role.CANDIDATE])

    with pytest.raises(Unauthenticated):
        await VERIFIER.verify(token)


async def test_an_unsigned_token_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        await VERIFIER.verify(jwt.encode(claims(), "", algorithm="none"))


async def test_the_public_key_does_not_pass_for_a_shared_secret() -> None:
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, claims())
    )
    mac = hmac.new(PAIR.public_pem.encode(), head + b"." + body, hashlib.sha256).digest()
    token = b".".join([head, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()

    with pytest.raises(Unauthenticated):
        await VERIFIER.verify(token)


async def test_a_changed_payload_is_refused_also_after_the_original_was_verified() -> None:
    token = signed(claims())
    await VERIFIER.verify(token)
    head, _, signature = token.split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="bob")).encode()).rstrip(b"=").decode()

    with pytest.raises(Unauthenticated):
        await VERIFIER.verify(f"{head}.{body}.{signature}")


async def test_a_token_is_verified_once_and_then_remembered() -> None:
    token = mint(PAIR.private_pem, "alice", [Role.CANDIDATE])

    first = await VERIFIER.verify(token)

    assert await VERIFIER.verify(token) is first


def test_what_is_remembered_ends_on_time() -> None:
    actor, remembered = Actor("alice", frozenset()), Remembered()

    remembered.put(b"digest", actor, until=10.0)

    assert remembered.get(b"digest", 9.9) is actor
    assert remembered.get(b"digest", 10.0) is None


def test_the_oldest_is_forgotten_where_there_is_no_room() -> None:
    actor, remembered = Actor("alice", frozenset()), Remembered(capacity=2)

    for digest in (b"1", b"2", b"3"):
        remembered.put(digest, actor, until=10.0)

    assert [remembered.get(digest, 0.0) for digest in (b"1", b"2", b"3")] == [None, actor, actor]


@pytest.mark.parametrize("header", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c "])
def test_a_bearer_token_is_found_whatever_the_case_of_its_scheme(header: str) -> None:
    assert bearer_token(header) == "a.b.c"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "a.b.c"])
def test_an_authorization_without_a_bearer_token_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated):
        bearer_token(header)


@pytest.mark.parametrize(
    ("pem", "complaint"),
    [
        ("", "PEM"),
        ("nonsense", "PEM"),
        (PAIR.private_pem, "PEM"),
        (public_pem_of(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (public_pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)), "2048"),
    ],
    ids=["empty", "nonsense", "private", "P-384", "RSA-1024"],
)
def test_a_public_key_that_is_not_accepted_is_refused_when_it_is_read(pem: str, complaint: str) -> None:
    with pytest.raises(keys.UnusableKeyError, match=complaint):
        keys.public_key(pem)


def test_an_unreadable_private_key_is_refused_without_naming_it() -> None:
    with pytest.raises(keys.UnusableKeyError) as raised:
        mint("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----", "alice", [])

    assert "secret" not in str(raised.value)


def test_a_key_may_stand_on_one_line_with_escaped_line_ends() -> None:
    assert keys.public_key(PAIR.public_pem.replace("\n", "\\n")).algorithm == "EdDSA"
