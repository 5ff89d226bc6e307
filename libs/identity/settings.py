"""The identity part of the configuration, the same in every process that verifies tokens."""

from dataclasses import dataclass

from libs.identity import jwks, keys
from libs.identity.minting import DEFAULT_AUDIENCE, DEFAULT_ISSUER
from libs.identity.verifier import Keys, StaticKey, Verifier
from libs.runtime.config import ConfigError, Env


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the keys are (one of the two), and which tokens are ours."""

    public_key_pem: str
    jwks_url: str
    issuer: str
    audience: str


def read(env: Env) -> Settings:
    """Read COLLOQUY_JWT_PUBLIC_KEY or COLLOQUY_JWKS_URL, and COLLOQUY_JWT_ISSUER and _AUDIENCE."""
    url = env.text("COLLOQUY_JWKS_URL", "")
    # Naming the other variable makes the complaint say that either will do.
    pem = (
        env.text("COLLOQUY_JWT_PUBLIC_KEY", "")
        if url
        else env.text("COLLOQUY_JWT_PUBLIC_KEY", otherwise="COLLOQUY_JWKS_URL")
    )
    return Settings(
        public_key_pem=pem,
        jwks_url=url,
        issuer=env.text("COLLOQUY_JWT_ISSUER", DEFAULT_ISSUER),
        audience=env.text("COLLOQUY_JWT_AUDIENCE", DEFAULT_AUDIENCE),
    )


def open_verifier(settings: Settings) -> Verifier:
    """The verifier that the settings describe; `await verifier.close()` when draining.

    Raises:
        ConfigError: both sources of keys are set, or the one that is set cannot be used.
    """
    return Verifier(_keys(settings), settings.issuer, settings.audience)


def _keys(settings: Settings) -> Keys:
    if settings.jwks_url and settings.public_key_pem:
        raise ConfigError(["COLLOQUY_JWT_PUBLIC_KEY and COLLOQUY_JWKS_URL are both set"])
    if settings.jwks_url:
        if not settings.jwks_url.startswith(("https://", "http://")):
            raise ConfigError(["COLLOQUY_JWKS_URL must be an http or https URL"])
        return jwks.KeySet(settings.jwks_url)
    try:
        return StaticKey(keys.public_key(settings.public_key_pem))
    except keys.UnusableKeyError as error:
        raise ConfigError([f"COLLOQUY_JWT_PUBLIC_KEY {error}"]) from None
