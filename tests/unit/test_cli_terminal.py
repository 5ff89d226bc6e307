"""Tokens that the command line makes."""

from pathlib import Path

import jwt
import pytest

from libs.runtime.config import ConfigError
from services.cli import environment, terminal


def test_a_token_is_for_whom_the_services_are_told_also_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "issuer").write_text("https://login.example\n")
    given = {"COLLOQUY_JWT_ISSUER_FILE": str(tmp_path / "issuer"), "COLLOQUY_JWT_AUDIENCE": "interviews"}
    settled = environment.with_defaults(given, tmp_path)

    claims = jwt.decode(terminal.token(settled, "ada", ["candidate"]), options={"verify_signature": False})

    assert (claims["iss"], claims["aud"]) == ("https://login.example", "interviews")


def test_a_file_that_is_not_there_is_a_clear_problem(tmp_path: Path) -> None:
    settled = environment.with_defaults({"COLLOQUY_JWT_ISSUER_FILE": str(tmp_path / "none")}, tmp_path)

    with pytest.raises(ConfigError, match="COLLOQUY_JWT_ISSUER_FILE cannot be read"):
        terminal.token(settled, "ada", ["candidate"])
