"""The benchmark's candidates answer at the length of real ones, and each in their own way."""

from itertools import islice

from tests.bench.answers import MAX_CHARS, MIN_CHARS, answers


def test_answers_have_the_length_of_real_ones() -> None:
    lengths = [len(text) for text in islice(answers(1), 2_000)]

    assert min(lengths) >= MIN_CHARS
    assert max(lengths) <= MAX_CHARS
    assert max(lengths) - min(lengths) > 300


def test_answers_differ_from_turn_to_turn_and_from_candidate_to_candidate() -> None:
    one, other = list(islice(answers(1), 40)), list(islice(answers(2), 40))

    assert len(set(one + other)) == 80
    assert one == list(islice(answers(1), 40))
