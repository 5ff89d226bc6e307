"""Keys that an issuer publishes: found by id, renewed in time, fetched no more often than they should be."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from libs.identity import jwks, keys
from libs.identity.jwks import FIRST_RETRY_SECONDS, MAX_AGE_SECONDS, REFRESH_SECONDS, KeySet
from libs.identity.verifier import Verifier
from libs.runtime.errors import Unavailable

ED25519 = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer is this process: where it stalls, the keys come late, which none of these tests is about."""
    monkeypatch.setattr(jwks, "TIMEOUT_SECONDS", 60.0)


def jwk_of(key: keys.Signing, **members: str) -> dict[str, object]:
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        made = OKPAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        made = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        made = RSAAlgorithm.to_jwk(public, as_dict=True)
    return {name: value for name, value in made.items() if name != "key_ops"} | members


@dataclass
class Issuer:
    """A JWKS endpoint that a test scripts: what it answers, and how often it was asked."""

    document: object
    status: int = 200
    asked: int = 0
    url: str = ""
    now: float = field(default=1000.0)

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, body=json.dumps(self.document), content_type="application/json")


@asynccontextmanager
async def issuing(*jwks: object) -> AsyncIterator[tuple[Issuer, KeySet]]:
    issuer, app = Issuer({"keys": list(jwks)}), web.Application()
    app.add_routes([web.get("/jwks", issuer.answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    key_set = KeySet(issuer.url, clock=lambda: issuer.now)
    try:
        yield issuer, key_set
    finally:
        await key_set.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ED25519, "EdDSA"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
    ],
    ids=["EdDSA", "ES256", "RS256"],
)
async def test_a_published_key_verifies_with_the_algorithm_of_its_type(key: keys.Signing, algorithm: str) -> None:
    async with issuing(jwk_of(key, kid="k1")) as (_, key_set):
        found = await key_set.find("k1")

        assert found is not None
        assert found.algorithm == algorithm


async def test_a_token_of_the_issuer_verifies() -> None:
    async with issuing(jwk_of(ED25519, kid="k1")) as (_, key_set):
        claims = {"iss": "i", "aud": "a", "sub": "alice", "roles": ["candidate"], "exp": 2**40}
        token = jwt.encode(claims, ED25519, algorithm="EdDSA", headers={"kid": "k1"})

        assert (await Verifier(key_set, "i", "a").verify(token)).subject == "alice"


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"},
        jwk_of(ED25519, kid="k1", use="enc"),
        jwk_of(ED25519, kid="k1", alg="HS256"),
        jwk_of(ED25519, kid="k1", d="c2VjcmV0"),
        jwk_of(ec.generate_private_key(ec.SECP384R1()), kid="k1"),
        {"kid": "k1"},
        "k1",
    ],
    ids=["symmetric", "for encryption", "of another algorithm", "private", "P-384", "no type", "no object"],
)
async def test_a_published_key_that_is_not_for_tokens_is_passed_over(jwk: object) -> None:
    async with issuing(jwk) as (_, key_set):
        assert await key_set.find("k1") is None


async def test_a_token_without_a_key_id_means_the_only_key() -> None:
    async with issuing(jwk_of(ED25519)) as (_, one), issuing(jwk_of(ED25519), jwk_of(ED25519)) as (_, two):
        assert await one.find(None) is not None
        assert await two.find(None) is None


async def test_known_keys_are_not_fetched_again_until_they_are_old() -> None:
    async with issuing(jwk_of(ED25519, kid="k1")) as (issuer, key_set):
        for _ in range(3):
            await key_set.find("k1")

        assert issuer.asked == 1


async def test_an_unknown_key_id_fetches_again_but_not_each_time() -> None:
    async with issuing(jwk_of(ED25519, kid="k1")) as (issuer, key_set):
        await key_set.find("k1")
        issuer.document = {"keys": [jwk_of(ED25519, kid="k2")]}

        assert await key_set.find("k2") is None
        issuer.now += REFRESH_SECONDS
        assert await key_set.find("k2") is not None
        assert [await key_set.find(f"made-up-{n}") for n in range(5)] == [None] * 5
        assert issuer.asked == 2


async def test_old_keys_are_renewed_behind_the_request_that_finds_them_old() -> None:
    async with issuing(jwk_of(ED25519, kid="k1")) as (issuer, key_set):
        await key_set.find("k1")
        issuer.document = {"keys": []}
        issuer.now += MAX_AGE_SECONDS

        assert await key_set.find("k1") is not None
        assert key_set._renewal is not None
        await key_set._renewal
        assert await key_set.find("k1") is None


async def test_keys_go_on_counting_while_the_issuer_is_down() -> None:
    async with issuing(jwk_of(ED25519, kid="k1")) as (issuer, key_set):
        await key_set.find("k1")
        issuer.status = 500
        issuer.now += MAX_AGE_SECONDS
        await key_set.find("k1")
        assert key_set._renewal is not None
        await key_set._renewal

        assert await key_set.find("k1") is not None


@pytest.mark.parametrize("document", [[], {}, {"keys": {}}, {"keys": ["x" * 300_000]}], ids=lambda it: str(it)[:20])
async def test_without_any_key_set_nobody_is_turned_away_for_good(document: object) -> None:
    async with issuing() as (issuer, key_set):
        issuer.document = document

        with pytest.raises(Unavailable):
            await key_set.find("k1")

        issuer.document = {"keys": [jwk_of(ED25519, kid="k1")]}
        issuer.now += FIRST_RETRY_SECONDS
        assert await key_set.find("k1") is not None
