"""/openapi.json and /docs: complete and consistent, and nothing that is not there."""

import re
from collections.abc import Iterator
from typing import Any

from tests.rpc.bff_world import World, running_world, world

__all__ = ["running_world", "world"]

ROUTES = {
    "/api/v1/interviews": {"get", "post"},
    "/api/v1/interviews/{id}": {"delete", "get"},
    "/api/v1/interviews/{id}/messages": {"get", "post"},
    "/api/v1/interviews/{id}/end": {"post"},
    "/api/v1/chat": {"get", "post"},
    "/api/v1/chat/{id}": {"delete", "get"},
    "/api/v1/chat/{id}/messages": {"get"},
}


async def described(world: World) -> Any:
    return (await world.ask("GET", "/openapi.json", authorization="")).json


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_every_route_is_described_and_no_other(world: World) -> None:
    document = await described(world)

    assert document["openapi"].startswith("3.1")
    assert {path: set(operations) for path, operations in document["paths"].items()} == ROUTES


async def test_every_reference_leads_somewhere(world: World) -> None:
    document = await described(world)

    for reference in set(references(document)):
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node


async def test_every_operation_names_its_parameters_its_problems_and_its_token(world: World) -> None:
    document = await described(world)

    names = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            in_path = {it["name"] for it in operation.get("parameters", []) if it["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            assert operation["security"] == [{"bearer": []}]
    assert len(set(names)) == len(names)


async def test_a_body_is_described_with_its_limits_and_a_turn_also_as_a_stream(world: World) -> None:
    submit = (await described(world))["paths"]["/api/v1/interviews/{id}/messages"]["post"]

    body = submit["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["message_text"]
    assert body["properties"]["message_text"]["maxLength"] == 2000
    assert set(submit["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}


async def test_the_page_for_people_reads_the_document(world: World) -> None:
    page = await world.ask("GET", "/docs", authorization="")

    assert page.headers["Content-Type"].startswith("text/html")
    assert b"/openapi.json" in page.body
