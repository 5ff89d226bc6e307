"""A call from its intent to its result: at most two attempts at the provider, each in the ledger before it is made.

This is the one layer that tries again. It does so within a turn's budget: only for what may pass, only while somebody
waits long enough for it, and never once text has been shown that another attempt would contradict.
"""

import asyncio
import random
from dataclasses import dataclass, replace
from typing import Final

from libs.runtime import telemetry
from libs.runtime.errors import NotFound, Unavailable
from services.llm_gateway.domain import (
    AttemptEnd,
    AttemptState,
    Call,
    CallState,
    Completion,
    Failure,
    Usage,
    error_of,
    flaw_of,
)
from services.llm_gateway.flight import Flight
from services.llm_gateway.pricing import Meter
from services.llm_gateway.provider import Provider
from services.llm_gateway.replies import ProviderError
from services.llm_gateway.store import Held, Intent, Store

MAX_ATTEMPTS: Final = 2
CALL_TIMEOUT_MS: Final = 10_000
STREAM_TIMEOUT_MS: Final = 15_000
"""Of a call whose reply is read as it is written, as long as somebody waits for the end of it: a chat's whole time."""
LEASE_MARGIN_MS: Final = 2_000
"""What a lease has beyond the call's timeout, to record the result."""
MIN_ATTEMPT_MS: Final = 300
"""Less than this is not worth an attempt: few models begin to answer sooner."""
RETRY_DELAY_MS: Final = (25, 75)
"""The jittered wait before another attempt where the provider asks for none."""
RECORD_RETRY_SECONDS: Final = (0.05, 0.15)

_SECONDS = telemetry.histogram(
    "llm_call_seconds",
    "From a call's intent to its end, all attempts included.",
    (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 1.65, 2.0, 3.0, 5.0, 10.0, 15.0),
    ("provider", "purpose", "outcome"),
)
_TOKENS = telemetry.counter("llm_tokens_total", "Tokens of settled attempts.", ("provider", "purpose", "direction"))
_COST = telemetry.counter(
    "llm_cost_usd_total",
    "What attempts cost, those with an unknown outcome at their ceiling.",
    ("provider", "purpose"),
)


@dataclass(frozen=True, slots=True)
class Attempted:
    """How an attempt ended, with the completion if it can be used, and the wait that the provider asked for."""

    end: AttemptEnd
    completion: Completion | None = None
    retry_after_ms: int | None = None


class Dispatcher:
    """Makes calls to one provider.

    Args:
        timeout_ms: of a call, all attempts included; its lease is `margin_ms` longer.
        stream_timeout_ms: of a streamed one, at most, while somebody waits for so long.
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        timeout_ms: int = CALL_TIMEOUT_MS,
        stream_timeout_ms: int = STREAM_TIMEOUT_MS,
        margin_ms: int = LEASE_MARGIN_MS,
    ) -> None:
        self._store, self._provider, self._meter = store, provider, Meter(provider.model)
        self._timeout_ms, self._stream_timeout_ms, self._margin_ms = timeout_ms, stream_timeout_ms, margin_ms

    def intent(self, flight: Flight) -> Intent:
        """What is to be written before the first attempt."""
        offer, timeout_ms = flight.offer, self._timeout_ms
        if flight.streamed:
            timeout_ms = max(timeout_ms, int(min(flight.wanted_ms, self._stream_timeout_ms)))
        prompt_tokens = self._meter.prompt_tokens(offer.prompt)
        return Intent(
            offer,
            self._provider.name,
            self._provider.model,
            self._provider.body(offer.prompt, streamed=flight.streamed),
            prompt_tokens,
            self._meter.ceiling(prompt_tokens, offer.prompt),
            timeout_ms + self._margin_ms,
        )

    async def run(self, flight: Flight, held: Held, started: float) -> Call | None:
        """Make the call whose intent has been written; None where another intent has overtaken it.

        Args:
            started: on the loop's clock, before the intent was sent to the ledger: so our time ends before the lease.

        Raises:
            Unavailable: the provider gave no usable answer, or the ledger cannot be reached.
            InvalidField: the provider refuses the prompt.
        """
        loop = asyncio.get_running_loop()
        deadline, unknown = started + (held.intent.lease_ms - self._margin_ms) / 1000, False
        while True:
            attempted = await self._attempt(flight, held, deadline)
            self._account(held, attempted.end)
            unknown = unknown or attempted.end.state is AttemptState.UNKNOWN
            delay_ms = _delay_ms(flight, held, attempted, (deadline - loop.time()) * 1000)
            following = None if delay_ms is None else await self._retry(held, attempted, delay_ms)
            if following is None:
                break
            held = following
        failure = attempted.end.failure
        state = CallState.DONE if failure is None else CallState.UNKNOWN if unknown else CallState.FAILED
        call = await self._finish(held, attempted, state, started)
        _SECONDS.labels(*_labels(held), state.lower()).observe(loop.time() - started)
        if call is not None and failure is not None:
            raise error_of(failure, attempted.retry_after_ms)
        return call

    async def _attempt(self, flight: Flight, held: Held, deadline: float) -> Attempted:
        offer, intent = held.intent.offer, held.intent
        try:
            async with asyncio.timeout_at(deadline):
                completion = await self._provider.complete(
                    intent.body, str(offer.key), flight.add if flight.streamed else None
                )
        except TimeoutError:
            return _failed(ProviderError(Failure.TIMEOUT), intent)
        except ProviderError as error:
            return _failed(error, intent)
        failure, usage = flaw_of(completion, offer.prompt), self._meter.usage(completion, intent.prompt_tokens)
        end = AttemptEnd(AttemptState.SETTLED, usage, 200, failure)
        return Attempted(end, completion if failure is None else None)

    async def _retry(self, held: Held, attempted: Attempted, delay_ms: float) -> Held | None:
        await asyncio.sleep(delay_ms / 1000)
        try:
            return await self._store.retry(held, attempted.end)
        except Unavailable:
            return await self._retried(held)

    async def _retried(self, held: Held) -> Held | None:
        """The next attempt where it was written although no answer came; only we write under our fence.

        Left alone it would keep the call from everybody until the lease ends.
        """
        following = replace(held, attempt=held.attempt + 1)
        try:
            found = await self._store.read(held.intent.offer.key)
        except (Unavailable, NotFound):
            return None
        return following if (found.fence, found.attempt) == (following.fence, following.attempt) else None

    async def _finish(self, held: Held, attempted: Attempted, state: CallState, started: float) -> Call | None:
        """Record the end; while the ledger cannot be reached, until the lease ends. Late is not lost."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._store.finish(held, attempted.end, state, attempted.completion)
            except Unavailable:
                if loop.time() >= started + held.intent.lease_ms / 1000:
                    raise
                await asyncio.sleep(random.uniform(*RECORD_RETRY_SECONDS))

    def _account(self, held: Held, end: AttemptEnd) -> None:
        labels = _labels(held)
        _TOKENS.labels(*labels, "prompt").inc(end.usage.prompt_tokens)
        _TOKENS.labels(*labels, "completion").inc(end.usage.completion_tokens)
        _COST.labels(*labels).inc(end.usage.cost_nano_usd / 1e9)
        if end.failure is not None:
            telemetry.logger().warning(
                "llm_attempt_failed",
                provider=held.intent.provider,
                purpose=held.intent.offer.key.purpose,
                attempt=held.attempt,
                state=end.state.value,
                failure=end.failure.value,
                status=end.status,
            )


def _failed(error: ProviderError, intent: Intent) -> Attempted:
    if error.failure.may_be_billed:
        end = AttemptEnd(AttemptState.UNKNOWN, Usage(cost_nano_usd=intent.ceiling), error.status, error.failure)
    else:
        end = AttemptEnd(AttemptState.RELEASED, Usage(), error.status, error.failure)
    return Attempted(end, retry_after_ms=error.retry_after_ms)


def _delay_ms(flight: Flight, held: Held, attempted: Attempted, left_ms: float) -> float | None:
    """How long to wait before another attempt, None where there should be none."""
    failure = attempted.end.failure
    if failure is None or not failure.passing or held.attempt == MAX_ATTEMPTS or flight.shown:
        return None
    asked_ms = attempted.retry_after_ms
    delay_ms = random.uniform(*RETRY_DELAY_MS) if asked_ms is None else asked_ms
    return delay_ms if min(flight.wanted_ms, left_ms) - delay_ms >= MIN_ATTEMPT_MS else None


def _labels(held: Held) -> tuple[str, str]:
    return held.intent.provider, held.intent.offer.key.kind
