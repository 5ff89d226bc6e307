"""The catalogue names what the code has, and all of it: a step that is added, renamed or removed shows here.

That each point is reached where it stands is shown on the running product (tests/e2e/test_failpoints.py).
"""

import importlib
import re
from collections.abc import Iterator

import pytest
from google.protobuf import descriptor_pool

from libs.failpoints.catalogue import POINTS, PROVIDER, STEPS, Step
from libs.runtime.db import Statement

# Each store, with the module that holds its statements.
STATEMENTS = {
    "history": "services.history.statements",
    "session": "services.session.store",
    "assessment": "services.assessment.statements",
    "llm-gateway": "services.llm_gateway.statements",
}
# What such a statement begins, another goes on with in the same transaction, which is named after that one.
BEGINNINGS = {("llm-gateway", "llm_bury"), ("assessment", "assessment_bury")}
STUBS = ("assessment", "gateway", "history", "llm", "session")
NAME = re.compile(r"(bff|gateway|session|history|assessment|llm)(\.[a-z]+(_[a-z]+)*){1,2}\.(before|after)")


def writing_statements() -> Iterator[tuple[str, str]]:
    """The service and the label of every statement that changes something."""
    for service, module in STATEMENTS.items():
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, Statement) and re.search(r"\b(INSERT INTO|UPDATE \w+\.|DELETE FROM)", value.sql):
                yield service, value.name


def test_every_statement_that_writes_is_a_step_and_every_such_step_is_a_statement() -> None:
    steps = {(step.service, step.seam) for step in STEPS if not step.seam.startswith("/") and step.seam != PROVIDER}
    statements = set(writing_statements()) - BEGINNINGS

    assert (statements - steps, steps - statements) == (set(), set()), "libs/failpoints/catalogue.py lists the steps"


@pytest.mark.parametrize("step", [step for step in STEPS if step.seam.startswith("/")], ids=lambda step: step.name)
def test_a_call_is_of_a_method_that_there_is(step: Step) -> None:
    for context in STUBS:
        importlib.import_module(f"colloquy.{context}.v1.{context}_pb2")
    service, _, method = step.seam.removeprefix("/").partition("/")

    descriptor_pool.Default().FindMethodByName(f"{service}.{method}")


def test_names_and_seams_are_unique_within_a_process() -> None:
    assert len(POINTS) == 2 * len(STEPS)
    assert len({(step.service, step.seam) for step in STEPS}) == len(STEPS)


@pytest.mark.parametrize("name", sorted(POINTS))
def test_a_name_begins_with_the_context_whose_process_has_the_point(name: str) -> None:
    assert NAME.fullmatch(name)
    assert POINTS[name].service.removesuffix("-gateway") == name.partition(".")[0]


def test_the_designs_own_examples_are_there() -> None:
    assert {"history.begin.before", "history.begin.after", "history.commit.before", "history.commit.after"} <= set(
        POINTS
    )
