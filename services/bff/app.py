"""The application: routes, who may enter, and what every failure looks like."""

from collections.abc import Awaitable, Callable, Sequence
from importlib import metadata

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.telemetry import TelemetryConfig
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Scope

from libs.identity.actor import bearer_token
from libs.identity.verifier import Verifier
from libs.runtime import context, telemetry
from libs.runtime.errors import ColloquyError, Internal, Malformed, NotFound
from services.bff import documentation, problems, rendering, routes
from services.bff.conversations import Budgets, Conversations, json_response
from services.bff.decoding import UnsupportedMediaTypeError
from services.bff.edge import Edge
from services.bff.exchange import Exchange
from services.bff.gateway import Gateway
from services.bff.problems import Problem
from services.bff.routes import Handler, Probes, Route

REJECTED = telemetry.counter("rejected_inputs_total", "Requests refused for what was in them.", ("reason",))
_INPUT_STATUSES = frozenset({400, 413, 415, 422})
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_ALLOWED_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "X-Correlation-ID", "traceparent")
_EXPOSED_HEADERS = ("Idempotency-Replayed", "X-Correlation-ID", "Server-Timing", "Retry-After")


def build(
    gateway: Gateway, verifier: Verifier, budgets: Budgets, probes: Probes, cors_origins: Sequence[str]
) -> ASGIApp:
    """The whole ASGI application. `cors_origins` are those of the pages that may call it; `*` means any."""
    app = FastAPI(
        title="Colloquy",
        version=metadata.version("colloquy"),
        summary="AI interviews and chats, one turn at a time.",
        openapi_url=None,  # the document is served below, completed
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    for route in (
        *routes.interviews(Conversations(rendering.INTERVIEW, gateway, budgets)),
        *routes.chat(Conversations(rendering.CHAT, gateway, budgets)),
    ):
        _add(app, route, verifier)
    _add_operations(app, probes)
    app.add_exception_handler(ColloquyError, _on_error)
    app.add_exception_handler(UnsupportedMediaTypeError, _on_media_type)
    app.add_exception_handler(HTTPException, _on_no_route)
    app.add_exception_handler(Exception, _on_defect)
    return Edge(_Cors(app, cors_origins) if cors_origins else app)


def _add(app: FastAPI, route: Route, verifier: Verifier) -> None:
    """Register a route that asks for a token before anything else is looked at."""

    async def endpoint(request: Request) -> Response:
        exchange = Exchange.of(request.scope)
        await verifier.verify(bearer_token(context.authorization()))
        return await route.handler(exchange)

    app.add_api_route(
        route.path, endpoint, methods=[route.method], name=route.name, operation_id=route.name, **route.described
    )


def _add_operations(app: FastAPI, probes: Probes) -> None:
    """What orchestrators and developers read, without a token."""
    described = documentation.openapi(app)
    swagger = bytes(get_swagger_ui_html(openapi_url="/openapi.json", title="Colloquy").body)

    async def openapi(_: Exchange) -> Response:
        return json_response(described)

    async def docs(_: Exchange) -> Response:
        return Response(swagger, media_type="text/html")

    served: Sequence[tuple[str, Handler]] = (
        ("/livez", probes.livez),
        ("/readyz", probes.readyz),
        ("/openapi.json", openapi),
        ("/docs", docs),
    )
    for path, handler in served:
        app.add_api_route(path, _open_to_all(handler), methods=["GET"], include_in_schema=False, response_model=None)


def _open_to_all(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handler(Exchange.of(request.scope))

    return endpoint


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ColloquyError)
    return problem_response(problems.of_error(error))


async def _on_media_type(_: Request, __: Exception) -> Response:
    return problem_response(problems.unsupported_media_type())


async def _on_no_route(request: Request, error: Exception) -> Response:
    """What the router itself refuses: a path that nobody has, or another method of a path that somebody has."""
    assert isinstance(error, HTTPException)
    if error.status_code == problems.ROWS[problems.METHOD_NOT_ALLOWED].status:
        return problem_response(problems.method_not_allowed(_allowed(request.scope)))
    return problem_response(problems.of_error(NotFound()))


async def _on_defect(_: Request, __: Exception) -> Response:
    """The text of an unexpected exception is for the log, where `Edge` puts it."""
    return problem_response(problems.of_error(Internal()))


def problem_response(problem: Problem) -> Response:
    """A problem as a response; a refused input is counted."""
    context.bind(reason=problem.reason)
    if problem.status in _INPUT_STATUSES:
        REJECTED.labels(problem.reason).inc()
    body = problem.body(context.correlation_id())
    return Response(body, problem.status, problem.headers, problems.MEDIA_TYPE)


def _allowed(scope: Scope) -> list[str]:
    """All methods of the path, on whichever routes they are (the router names those of the first one only)."""
    methods = set[str]()
    for route in scope["app"].routes:
        if isinstance(route, StarletteRoute) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


class _Cors(CORSMiddleware):
    """Starlette's, for pages of other origins that send a bearer token; tokens are not cookies, so no credentials."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=_ALLOWED_HEADERS,
            expose_headers=_EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        refusal = problem_response(problems.of_error(Malformed(bytes(response.body).decode())))
        refusal.headers["Vary"] = response.headers["Vary"]
        return refusal
