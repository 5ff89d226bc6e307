"""Server-sent events, as far as a stream of completions uses them: the data of each event, and nothing else.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from collections.abc import Iterator


class EventData:
    """Turns the bytes of a stream, cut anywhere, into the data of its events. Lines end in LF or CRLF."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of the events that `chunk` completes; a comment, or an event without data, has none."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for ended in lines:
            line = ended.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
