"""Builds tiktoken's encodings from the rank files shipped in `data/`.

tiktoken itself downloads these files at first use, which fails without a network and, worse, happens inside a
request. Here they are package data, their sha256 is checked before a byte of them is used, and nothing else is read.
The special tokens are left out on purpose: what a candidate types is never a control token.

Source of the files: https://openaipublic.blob.core.windows.net/encodings/{o200k_base,cl100k_base}.tiktoken; of the
hashes and split patterns: `tiktoken_ext.openai_public` of the locked tiktoken (a test compares the two).
"""

import binascii
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tiktoken

EncodingName = Literal["o200k_base", "cl100k_base"]

_DATA = Path(__file__).parent / "data"


class RankFileError(RuntimeError):
    """A shipped rank file is missing or is not the one this version was built with: reinstall the package."""


@dataclass(frozen=True, slots=True)
class RankFile:
    """One encoding's file of base64 tokens and ranks, and the pattern that splits a text before merging."""

    sha256: str
    pattern: str


_O200K_WORD_END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

RANK_FILES: Mapping[EncodingName, RankFile] = {
    "o200k_base": RankFile(
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern="|".join(
            [
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _O200K_WORD_END,
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _O200K_WORD_END,
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            ]
        ),
    ),
    "cl100k_base": RankFile(
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern="|".join(
            [
                r"'(?i:[sdmt]|ll|ve|re)",
                r"[^\r\n\p{L}\p{N}]?+\p{L}++",
                r"\p{N}{1,3}+",
                r" ?[^\s\p{L}\p{N}]++[\r\n]*+",
                r"\s++$",
                r"\s*[\r\n]",
                r"\s+(?!\S)",
                r"\s",
            ]
        ),
    ),
}


@functools.cache
def load(name: EncodingName) -> tiktoken.Encoding:
    """Return the encoding, built once per process: 0.1 to 0.3 s and 30 to 80 MB the first time.

    Raises:
        RankFileError: the file cannot be read, or its sha256 is another one.
    """
    return build(name, _DATA)


def build(name: EncodingName, directory: Path) -> tiktoken.Encoding:
    """Verify and parse the rank file of `name` in `directory`.

    Raises:
        RankFileError: as for `load`.
    """
    path = directory / f"{name}.tiktoken"
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise RankFileError(f"cannot read the token ranks {path}: {error.strerror}; reinstall colloquy") from error
    actual, expected = hashlib.sha256(contents).hexdigest(), RANK_FILES[name].sha256
    if actual != expected:
        raise RankFileError(f"the token ranks {path} are damaged: sha256 {actual}, not {expected}; reinstall colloquy")
    lines = (line.split() for line in contents.splitlines())
    ranks = {binascii.a2b_base64(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding(name, pat_str=RANK_FILES[name].pattern, mergeable_ranks=ranks, special_tokens={})
