"""The bytes of OpenAI's chat completions API: objects, streamed events, errors.

Source: https://platform.openai.com/docs/api-reference/chat, and the types of the locked `openai` package.
"""

import re
from dataclasses import dataclass

import orjson

from services.simulator.json_schema import Json

BROKEN_EVENT = b'data: {"id":"chatcmpl-broken","object":"chat.completion.chu\n\n'
DONE_EVENT = b"data: [DONE]\n\n"

_FINGERPRINT = "fp_simulator"
_PIECE = re.compile(r"\s*\S{1,12}|\s+")


@dataclass(frozen=True, slots=True)
class Completion:
    """One completed reply; `number` makes its id."""

    number: int
    created: int
    model: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def completion_id(self) -> str:
        """The id, unique within the process."""
        return f"chatcmpl-sim{self.number:010x}"


def pieces(text: str) -> list[str]:
    """Split a reply into words with the white space before them, about a token each; joined they are the reply."""
    return _PIECE.findall(text)


def body(completion: Completion) -> bytes:
    """Return the `chat.completion` object."""
    return orjson.dumps(
        {
            "id": completion.completion_id,
            "object": "chat.completion",
            "created": completion.created,
            "model": completion.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": completion.text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": completion.finish_reason,
                }
            ],
            "usage": _usage(completion),
            "system_fingerprint": _FINGERPRINT,
        }
    )


def events(completion: Completion, *, include_usage: bool) -> list[bytes]:
    """Return the server-sent events, one element for each piece of the text.

    The first element also has the event with the role, the last one also the finish reason, the usage where it is asked
    for (then every other event says `"usage": null`, as OpenAI's do), and `[DONE]`.
    """
    # Concatenated, not serialised event by event: a reply has some fifty that differ in one string.
    opening = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"system_fingerprint":%b,' % (
        orjson.dumps(completion.completion_id),
        completion.created,
        orjson.dumps(completion.model),
        orjson.dumps(_FINGERPRINT),
    )
    delta = opening + b'"choices":[{"index":0,"delta":{"content":'
    end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
    delta_end = b'},"logprobs":null,"finish_reason":null}]' + end
    role = b'{"role":"assistant","content":"","refusal":null'
    finish = b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":%b}]' % orjson.dumps(
        completion.finish_reason
    )

    blobs = [delta + orjson.dumps(piece) + delta_end for piece in pieces(completion.text)] or [b""]
    blobs[0] = opening + b'"choices":[{"index":0,"delta":' + role + delta_end + blobs[0]
    blobs[-1] += opening + finish + end
    if include_usage:
        blobs[-1] += opening + b'"choices":[],"usage":%b}\n\n' % orjson.dumps(_usage(completion))
    blobs[-1] += DONE_EVENT
    return blobs


def error(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    """Return an error object; `kind` is its `type`, such as `invalid_request_error`."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def models(names: tuple[str, ...]) -> bytes:
    """Return the list of models."""
    data: list[Json] = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in names]
    return orjson.dumps({"object": "list", "data": data})


def _usage(completion: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
    }
