"""The identity part of the configuration."""

from pathlib import Path

import pytest

from libs.identity import keys, settings
from libs.identity.actor import Role
from libs.identity.minting import mint
from libs.runtime.config import ConfigError, Env

PAIR = keys.generate_keypair()


def read(**variables: str) -> settings.Settings:
    env = Env(variables)
    found = settings.read(env)
    env.check()
    return found


async def test_a_public_key_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(PAIR.public_pem)

    verifier = settings.open_verifier(read(COLLOQUY_JWT_PUBLIC_KEY_FILE=str(file)))

    assert (await verifier.verify(mint(PAIR.private_pem, "alice", [Role.CANDIDATE]))).subject == "alice"
    await verifier.close()


def test_without_a_source_of_keys_both_variables_are_named() -> None:
    with pytest.raises(ConfigError, match=r"COLLOQUY_JWT_PUBLIC_KEY.*COLLOQUY_JWKS_URL"):
        read()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"COLLOQUY_JWT_PUBLIC_KEY": PAIR.public_pem, "COLLOQUY_JWKS_URL": "https://issuer.example/jwks"},
            "COLLOQUY_JWT_PUBLIC_KEY and COLLOQUY_JWKS_URL are both set",
        ),
        (
            {"COLLOQUY_JWT_PUBLIC_KEY": "nonsense"},
            "COLLOQUY_JWT_PUBLIC_KEY is not a public key in PEM form (-----BEGIN PUBLIC KEY-----)",
        ),
        ({"COLLOQUY_JWKS_URL": "file:///etc/passwd"}, "COLLOQUY_JWKS_URL must be an http or https URL"),
    ],
    ids=["both", "unreadable", "no web address"],
)
def test_a_source_of_keys_that_cannot_be_used_is_reported_with_all_else(
    variables: dict[str, str], problem: str
) -> None:
    env = Env({**variables, "COUNT": "many"})

    settings.read(env)
    env.integer("COUNT")

    with pytest.raises(ConfigError) as raised:
        env.check()
    assert raised.value.problems == (problem, "COUNT must be a whole number, not 'many'")


async def test_a_jwks_address_is_enough() -> None:
    verifier = settings.open_verifier(read(COLLOQUY_JWKS_URL="https://issuer.example/jwks"))

    await verifier.close()
