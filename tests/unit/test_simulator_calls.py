"""The simulator's log of calls is bounded, and its token counts are exact."""

from libs.tokens.counting import count_chat
from services.simulator.calls import CallLog
from services.simulator.chat_request import ChatRequest, Message
from services.simulator.usage import prompt_tokens


def test_prompt_tokens_are_those_of_the_chat_format_and_of_the_models_encoding() -> None:
    request = ChatRequest("gpt-4", (Message("system", "Be\nbrief."), Message("user", "お誕生日おめでとう")))

    tokens = prompt_tokens(request)

    messages = [{"role": "system", "content": "Be\nbrief."}, {"role": "user", "content": "お誕生日おめでとう"}]
    assert tokens == count_chat(messages, "cl100k_base") != count_chat(messages, "o200k_base")


def told(log: CallLog, since: int) -> tuple[list[object], object]:
    """Return the ids of the calls that ended after number `since`, and how many have been forgotten."""
    report = log.report(since)
    assert isinstance(report, dict)
    assert isinstance(report["calls"], list)
    return [call["call"] for call in report["calls"] if isinstance(call, dict)], report["forgotten"]


def test_the_log_forgets_the_oldest_calls_and_says_how_many() -> None:
    log = CallLog(capacity=3)
    for at in range(5):
        log.end(log.begin(f"call {at}"))
    log.begin("still running")

    assert told(log, 0) == (["call 2", "call 3", "call 4"], 2)
    assert told(log, 1) == (["call 2", "call 3", "call 4"], 1)
    assert told(log, 4) == (["call 4"], 0)
    assert told(log, 5) == ([], 0)
    assert told(log, 99) == ([], 0)


def test_a_cleared_log_numbers_from_1_again_and_keeps_the_running_calls() -> None:
    log = CallLog()
    running = log.begin("running")
    log.end(log.begin("ended"))

    log.clear()
    log.end(running)

    assert told(log, 0) == (["running"], 0)
    assert told(log, 1) == ([], 0)
