"""What the HTTP parser refuses, and so never becomes a request: an unknown method, a broken header, an endless path.

No application hears of it; uvicorn's protocol answers by itself, in plain text. Here it gets a problem like any other.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from libs.runtime import context, logs
from libs.runtime.errors import Malformed
from services.bff import problems
from services.bff.app import problem_response
from services.bff.edge import LINGER_SECONDS


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, but for its answer to what it cannot read, after which it reads nothing more."""

    _is_over = False

    def data_received(self, data: bytes) -> None:
        if not self._is_over:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (it is one text for all)
        """Called where the parser gives up."""
        self._is_over = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or cycle.response_started or not cycle.more_body:
                # What was asked before is being answered, and this must not end up in the middle of it.
                cycle.keep_alive = False
                return
            cycle.disconnected = True  # its own body is what is unreadable: the application waits for no more of it
            cycle.message_event.set()
        self.transport.write(self._refusal())
        self.transport.write_eof()
        # As `edge` does it, for a client that is still sending to see the response.
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _refusal(self) -> bytes:
        """The whole response; the parser may have come as far as the client's correlation id."""
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers or ()}
        with context.serving(sent):
            response = problem_response(problems.of_error(Malformed("Not a readable HTTP/1.1 request.")))
            headers = [
                *self.server_state.default_headers,
                *response.raw_headers,
                (b"x-correlation-id", context.correlation_id().encode()),
                (b"cache-control", b"no-store"),
                (b"connection", b"close"),
            ]
            logs.logger().info("http", rpc="other unknown", code=response.status_code, duration_ms=0.0)
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in headers), b"", b""]
        return b"\r\n".join(lines) + bytes(response.body)
