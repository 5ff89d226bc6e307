"""What the simulated candidates say: a few sentences of answers.txt each time, 100 to 600 characters, always others."""

import random
from collections.abc import Iterator
from pathlib import Path

MIN_CHARS = 100
MAX_CHARS = 600

_SENTENCES = Path(__file__).with_name("answers.txt")


def answers(seed: int) -> Iterator[str]:
    """Answers without end, the same ones for the same seed."""
    sentences = _SENTENCES.read_text(encoding="utf-8").splitlines()
    randomness = random.Random(seed)
    while True:
        wanted = randomness.randint(MIN_CHARS, MAX_CHARS)
        text = ""
        for sentence in randomness.sample(sentences, len(sentences)):
            longer = f"{text} {sentence}".lstrip()
            if len(text) >= wanted or len(longer) > MAX_CHARS:
                break
            text = longer
        yield text
