"""The OpenAPI document: what FastAPI cannot see of routes that decode and render by hand."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI
from pydantic import BaseModel

from services.bff import problems, schemas

_Document = dict[str, Any]

ID: _Document = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
PAGING: Sequence[_Document] = (
    {
        "name": "page_size",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    },
    {"name": "page_token", "in": "query", "schema": {"type": "string"}},
)
EVENTS = """
With `Accept: text/event-stream` the turn comes as events: `accepted` `{turn_id, request_id}`, the message is saved;
`delta` `{text}`, a piece of a draft; `completed`, the turn, whose text replaces the draft; `failed`, a problem. What
fails before `accepted` has its HTTP status. To resume, send the same request again."""

ERASURE = """
What was said is removed for good, and every other route answers 404 from then on, a turn that is running too. The same
request again is answered 204 again, so that it can be repeated when its response got lost; 404 means that there never
was anything here that you may erase."""


def key(*, required: bool) -> _Document:
    """The parameter that makes a request safe to send again."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": required,
        "description": "A UUID of yours for each request: the same one gets the same response.",
        "schema": {"type": "string", "format": "uuid"},
    }


def operation(
    summary: str,
    reply: type[BaseModel] | None,
    *,
    status: int = 200,
    parameters: Sequence[_Document] = (),
    body: type[BaseModel] | None = None,
    description: str = "",
    streams: bool = False,
) -> _Document:
    """Keyword arguments of FastAPI's `add_api_route` that describe one operation; without a `reply` it has no body."""
    answered: _Document = {"description": "Done."} | ({"model": reply} if reply else {})
    if streams:
        answered["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    extra: _Document = {"parameters": list(parameters)}
    if body:
        content = {"application/json": {"schema": body.model_json_schema()}}
        extra["requestBody"] = {"content": content, "required": bool(body.model_json_schema().get("required"))}
    return {
        "summary": summary,
        "description": description + (EVENTS if streams else ""),
        "status_code": status,
        "response_model": None,
        "responses": {
            status: answered,
            "default": {
                "description": "A problem: " + ", ".join(sorted(problems.ROWS)) + ".",
                "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
        "openapi_extra": extra,
    }


def openapi(app: FastAPI) -> bytes:
    """The document of all routes, with the bearer token that those under /api ask for."""
    document = app.openapi()
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(_schemas(schemas.Problem))
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    for path, operations in document["paths"].items():
        if path.startswith("/api/"):
            for described in operations.values():
                described["security"] = [{"bearer": []}]
    return orjson.dumps(document)


def _schemas(model: type[BaseModel]) -> _Document:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    nested: _Document = schema.pop("$defs", {})
    return {**nested, model.__name__: schema}
