"""The identity part of the configuration, the same in every process that verifies tokens."""

from dataclasses import dataclass

from libs.identity import jwks, keys
from libs.identity.keys import PublicKey
from libs.identity.minting import DEFAULT_AUDIENCE, DEFAULT_ISSUER
from libs.identity.verifier import StaticKey, Verifier
from libs.runtime.config import Env


@dataclass(frozen=True, slots=True)
class Settings:
    """The key, or where the keys are, and which tokens are ours."""

    public_key: PublicKey | None
    jwks_url: str
    issuer: str
    audience: str


def read(env: Env) -> Settings:
    """Read COLLOQUY_JWT_PUBLIC_KEY or COLLOQUY_JWKS_URL, and COLLOQUY_JWT_ISSUER and _AUDIENCE."""
    jwks_url = env.url("COLLOQUY_JWKS_URL", "")
    return Settings(
        public_key=_public_key(env, jwks_url),
        jwks_url=jwks_url,
        issuer=env.text("COLLOQUY_JWT_ISSUER", DEFAULT_ISSUER),
        audience=env.text("COLLOQUY_JWT_AUDIENCE", DEFAULT_AUDIENCE),
    )


def open_verifier(settings: Settings) -> Verifier:
    """The verifier that the settings describe; `await verifier.close()` when draining."""
    found = StaticKey(settings.public_key) if settings.public_key else jwks.KeySet(settings.jwks_url)
    return Verifier(found, settings.issuer, settings.audience)


def _public_key(env: Env, jwks_url: str) -> PublicKey | None:
    if jwks_url:
        if env.text("COLLOQUY_JWT_PUBLIC_KEY", ""):
            env.reject("COLLOQUY_JWT_PUBLIC_KEY", "and COLLOQUY_JWKS_URL are both set")
        return None
    # Naming the other variable makes the complaint say that either will do.
    pem = env.text("COLLOQUY_JWT_PUBLIC_KEY", otherwise="COLLOQUY_JWKS_URL")
    try:
        return keys.public_key(pem) if pem else None
    except keys.UnusableKeyError as error:
        env.reject("COLLOQUY_JWT_PUBLIC_KEY", str(error))
        return None
