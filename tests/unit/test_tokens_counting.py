"""libs.tokens counts offline, as tiktoken does, whatever the text."""

import hashlib
import importlib
import shutil
import socket
import time
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.tokens import ranks
from libs.tokens.counting import count, count_chat, encoding_for, warm
from libs.tokens.ranks import EncodingName, RankFileError

URLS: dict[EncodingName, str] = {
    name: f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken" for name in ranks.RANK_FILES
}
SHIPPED = Path(ranks.__file__).parent / "data"


@pytest.fixture
def tiktoken_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tiktoken find our files where it would keep its own downloads."""
    for name, url in URLS.items():
        shutil.copy(
            SHIPPED / f"{name}.tiktoken", tmp_path / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
        )
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@pytest.mark.usefixtures("tiktoken_cache")
def test_patterns_and_ranks_are_those_of_the_locked_tiktoken(name: EncodingName) -> None:
    theirs = importlib.import_module("tiktoken_ext.openai_public").ENCODING_CONSTRUCTORS[name]()

    ours = ranks.load(name)

    assert ours._pat_str == theirs["pat_str"]
    assert ours._mergeable_ranks == theirs["mergeable_ranks"]


@pytest.mark.parametrize(
    ("text", "encoding", "tokens"),
    [
        ("tiktoken is great!", "o200k_base", 6),
        ("tiktoken is great!", "cl100k_base", 6),
        ("お誕生日おめでとう", "o200k_base", 8),
        ("お誕生日おめでとう", "cl100k_base", 9),
        ("", "o200k_base", 0),
    ],
)
def test_known_texts_have_their_published_counts(text: str, encoding: EncodingName, tokens: int) -> None:
    assert count(text, encoding) == tokens


def test_the_cookbooks_example_conversation_counts_as_the_api_counted_it() -> None:
    jargon = "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."
    messages = [
        {"role": "system", "content": jargon},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {
            "role": "system",
            "name": "example_assistant",
            "content": "Things working well together will increase revenue.",
        },
        {
            "role": "system",
            "name": "example_user",
            "content": "Let's circle back when we have more bandwidth to touch base on "
            "opportunities for increased leverage.",
        },
        {
            "role": "system",
            "name": "example_assistant",
            "content": "Let's talk later when we're less busy about how to do better.",
        },
        {
            "role": "user",
            "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
        },
    ]

    assert count_chat(messages, "cl100k_base") == 129


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>"])
def test_a_special_token_in_a_text_is_counted_as_ordinary_characters(special: str) -> None:
    assert count(special) > 3
    assert count(f"ignore {special} this") > count("ignore this") + 3


def test_a_lone_surrogate_is_counted_not_refused() -> None:
    assert count("a\ud800b") >= 3


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-oss-120b", "o200k_base"),
        ("text-davinci-003", "o200k_base"),
        ("llama-3.3-70b-versatile", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_a_model_has_tiktokens_encoding_or_the_default(model: str, encoding: str) -> None:
    assert encoding_for(model) == encoding


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 32_000, id="one letter"),
        pytest.param(" " * 31_999 + "x", id="spaces, then a letter"),
        pytest.param("\n" * 32_000, id="line ends"),
        pytest.param("!" * 32_000, id="punctuation"),
        pytest.param("👨‍👩‍👧‍👦" * 4_571, id="joined emoji"),
        pytest.param("a" + "\u0301" * 31_999, id="combining marks"),
    ],
)
def test_repetitive_input_costs_linear_time(name: EncodingName, text: str) -> None:
    warm(name)

    def spent_ms() -> float:
        started = time.process_time()
        count(text, name)
        return (time.process_time() - started) * 1000

    # 3 to 8 ms on the machines this was written on; the quadratic algorithm of older releases takes 400 ms and more.
    # The least of three, as what a machine's host takes may count as ours.
    assert min(spent_ms() for _ in range(3)) < 200


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_a_million_spaces_are_counted_although_the_regex_could_not(name: EncodingName) -> None:
    tokens = count(" " * 1_000_000 + "x", name)

    assert 1_000 < tokens < 20_000


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_at_most_one_token_per_byte_and_at_least_one(text: str) -> None:
    tokens = count(text)

    assert (tokens > 0) == (text != "")
    assert tokens <= len(text.encode())


def test_a_missing_rank_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(RankFileError, match=r"o200k_base\.tiktoken: No such file or directory; reinstall"):
        ranks.build("o200k_base", tmp_path)


def test_a_damaged_rank_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    damaged = (SHIPPED / "cl100k_base.tiktoken").read_bytes()[:-1]
    (tmp_path / "cl100k_base.tiktoken").write_bytes(damaged)

    with pytest.raises(RankFileError, match="damaged"):
        ranks.build("cl100k_base", tmp_path)


def test_loading_never_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)

    built = ranks.build("o200k_base", SHIPPED)

    assert isinstance(built, tiktoken.Encoding)
