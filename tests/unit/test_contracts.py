"""The contracts keep their own rules: what an RPC's comment says, and which words stand for an error."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from libs.runtime.errors import Reason

_PROTOS = Path(__file__).parents[2] / "protos"
_SERVICE, _METHOD = FileDescriptorProto.SERVICE_FIELD_NUMBER, 2  # a method's path in a file: [6, service, 2, method]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """Every contract with its comments, which generated code does not keep."""
    described = tmp_path_factory.mktemp("contracts") / "all.binpb"
    sources = [str(path) for path in _PROTOS.rglob("*.proto")]
    options = [f"-I{_PROTOS}", "--include_source_info", f"--descriptor_set_out={described}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *sources], check=True)
    return list(FileDescriptorSet.FromString(described.read_bytes()).file)


def comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """The comment of every RPC in a file, by the RPC's full name."""
    by_path = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
    for number, service in enumerate(file.service):
        for index, method in enumerate(service.method):
            yield f"{file.package}.{service.name}/{method.name}", by_path.get((_SERVICE, number, _METHOD, index), "")


def reasons(files: list[FileDescriptorProto]) -> dict[str, set[str]]:
    """The words of each package's ErrorReason, without the one that stands for none."""
    words: dict[str, set[str]] = {file.package: set() for file in files if file.service}
    for file in files:
        values = [value.name for enum in file.enum_type if enum.name == "ErrorReason" for value in enum.value]
        words[file.package] |= {value.removeprefix("ERROR_REASON_") for value in values} - {"UNSPECIFIED"}
    return words


def named_errors(comment: str) -> set[str]:
    """The reasons that a comment lists, leaving out what it says of them in brackets."""
    return set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)*\b", re.sub(r"\([^)]*\)", "", comment.partition("Errors:")[2])))


def test_every_rpc_says_what_it_does_whether_it_may_be_repeated_and_how_it_fails(
    files: list[FileDescriptorProto],
) -> None:
    said = {name: comment.lower() for file in files for name, comment in comments(file)}

    silent = {
        name for name, comment in said.items() if not all(it in comment for it in ("effect", "idempoten", "error"))
    }

    assert len(said) > 30
    assert silent == set()


def test_every_error_reason_is_one_that_the_runtime_raises(files: list[FileDescriptorProto]) -> None:
    declared = reasons(files)

    assert all(declared.values())
    assert {package: words - set(Reason) for package, words in declared.items() if words - set(Reason)} == {}


def test_the_gateway_declares_whatever_a_client_may_hear(files: list[FileDescriptorProto]) -> None:
    assert reasons(files)["colloquy.gateway.v1"] == set(Reason)


def test_every_error_that_a_comment_names_is_declared_in_its_package(files: list[FileDescriptorProto]) -> None:
    declared = reasons(files)

    undeclared = {
        name: unknown
        for file in files
        for name, comment in comments(file)
        if (unknown := named_errors(comment) - declared[file.package] - {Reason.UNIMPLEMENTED})
    }

    assert undeclared == {}
