"""Signing keys, each with the one algorithm that its type stands for.

A token's own `alg` never chooses how it is verified: that would let a public key be taken for an HMAC secret, or
`none` through (RFC 8725, sections 2.1 and 3.1).
"""

from dataclasses import dataclass
from typing import TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

MIN_RSA_BITS = 2048  # RFC 7518, section 3.3

Verifying: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey
Signing: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


class UnusableKeyError(ValueError):
    """The key cannot be read, or is of a type or size that is not accepted; the text names no key material."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key to verify with, and the only algorithm it is used with."""

    key: Verifying
    algorithm: str


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key to sign with, and its algorithm."""

    key: Signing
    algorithm: str


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A new key, as PEM texts (PKCS #8 and SubjectPublicKeyInfo)."""

    private_pem: str
    public_pem: str


def generate_keypair() -> KeyPair:
    """A new Ed25519 key."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(private.decode(), public.decode())


def public_key(pem: str) -> PublicKey:
    """Read a public key. Raises UnusableKeyError."""
    try:
        key = load_pem_public_key(_pem_bytes(pem))
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKeyError("is not a public key in PEM form (-----BEGIN PUBLIC KEY-----)") from None
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
        raise UnusableKeyError("must be an Ed25519, P-256 or RSA key")
    return PublicKey(key, _algorithm(key))


def private_key(pem: str) -> PrivateKey:
    """Read an unencrypted private key. Raises UnusableKeyError."""
    try:
        key = load_pem_private_key(_pem_bytes(pem), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKeyError("is not an unencrypted private key in PEM form (-----BEGIN PRIVATE KEY-----)") from None
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey):
        raise UnusableKeyError("must be an Ed25519, P-256 or RSA key")
    return PrivateKey(key, _algorithm(key))


def from_jwk(jwk: object) -> PublicKey | None:
    """The key in a JWK (RFC 7517); None for one that is not for verifying our tokens, or not usable."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or "d" in jwk or jwk.get("kty") == "oct":
        return None
    try:
        # Without its `alg`, which may name another algorithm of the same family, the type alone decides.
        parsed = jwt.PyJWK({name: value for name, value in jwk.items() if name != "alg"}).key
        if not isinstance(parsed, Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
            return None
        found = PublicKey(parsed, _algorithm(parsed))
    except (jwt.PyJWTError, UnusableKeyError):
        return None
    return (
        found if jwk.get("alg", found.algorithm) in (found.algorithm, _FULLY_SPECIFIED.get(found.algorithm)) else None
    )


# RFC 9864 calls EdDSA on this curve "Ed25519"; issuers may label their keys with either.
_FULLY_SPECIFIED = {"EdDSA": "Ed25519"}


def _algorithm(key: Verifying | Signing) -> str:
    if isinstance(key, Ed25519PublicKey | Ed25519PrivateKey):
        return "EdDSA"
    if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey):
        if not isinstance(key.curve, SECP256R1):
            raise UnusableKeyError("must be on the curve P-256 if it is an elliptic curve key")
        return "ES256"
    if key.key_size < MIN_RSA_BITS:
        raise UnusableKeyError(f"must have at least {MIN_RSA_BITS} bits if it is an RSA key")
    return "RS256"


def _pem_bytes(pem: str) -> bytes:
    """Environment files hold one line for a value: there the line ends of a PEM are written as backslash, n."""
    return pem.replace("\\n", "\n").encode()
