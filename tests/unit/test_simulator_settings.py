"""The simulator's latencies and faults follow the settings, in a reproducible sequence."""

import random
import statistics

import pytest

from services.simulator.chat_request import Purpose
from services.simulator.json_schema import Json
from services.simulator.settings import Behaviour, Draws, Fault, Latency, Settings, SettingsError, changed, parse_fault


def test_latencies_are_lognormal_around_the_median() -> None:
    randomness = random.Random(5)

    drawn = [Latency(300, 0.3).draw_ms(randomness) for _ in range(20_000)]

    assert statistics.median(drawn) == pytest.approx(300, rel=0.02)
    assert statistics.quantiles(drawn, n=100)[98] == pytest.approx(300 * 2.01, rel=0.05)


def test_a_median_of_0_is_no_latency_and_a_sigma_of_0_a_constant_one() -> None:
    assert Latency(0, 0.3).draw_ms(random.Random(1)) == 0
    assert Latency(20, 0).draw_ms(random.Random(1)) == 20


def test_the_same_seed_draws_the_same_sequence_again() -> None:
    settings = Settings(7, Behaviour(Latency(100, 0.5), {Fault.HANG: 0.3}))

    sequences = [[draws.next(Purpose.CHAT) for _ in range(50)] for draws in (Draws(settings), Draws(settings))]

    assert sequences[0] == sequences[1]


def test_faults_come_as_often_as_they_should() -> None:
    draws = Draws(Settings(1, Behaviour(faults={Fault.SERVER_ERROR: 0.1, Fault.HANG: 0.2})))

    drawn = [draws.next(Purpose.JUDGE).fault for _ in range(10_000)]

    assert drawn.count(Fault.SERVER_ERROR) == pytest.approx(1000, rel=0.1)
    assert drawn.count(Fault.HANG) == pytest.approx(2000, rel=0.1)
    assert drawn.count(None) == pytest.approx(7000, rel=0.1)


def test_a_change_for_one_purpose_leaves_the_others_and_what_it_does_not_name() -> None:
    started = Settings(3, Behaviour(Latency(250, 0.2), {Fault.SERVER_ERROR: 0.5}))

    after = changed(started, {"purposes": {"judge": {"faults": {"hang": 1}}}})

    assert after.of(Purpose.JUDGE) == Behaviour(Latency(250, 0.2), {Fault.HANG: 1.0})
    assert after.of(Purpose.QUESTION) == started.behaviour
    assert changed(started, {}) == started


def test_settings_read_back_what_they_write() -> None:
    settings = changed(
        Settings(),
        {
            "seed": 4,
            "latency": {"median_ms": 20},
            "faults": {"429": 0.5},
            "purposes": {"chat": {"latency": {"sigma": 0}}},
        },
    )

    assert changed(Settings(seed=99), settings.as_json()) == settings


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"latencies": {}},
        {"latency": {"median": 3}},
        {"latency": {"median_ms": "3"}},
        {"latency": {"median_ms": -1}},
        {"faults": {"explode": 1}},
        {"faults": {"hang": 1.5}},
        {"faults": {"hang": 0.6, "500": 0.6}},
        {"purposes": {"summary": {}}},
        {"purposes": {"judge": {"seed": 1}}},
        {"seed": 1.5},
    ],
)
def test_settings_of_another_form_are_refused(document: Json) -> None:
    with pytest.raises(SettingsError):
        changed(Settings(), document)


def test_a_fault_on_the_command_line_is_a_kind_and_a_probability() -> None:
    assert parse_fault("500=0.1") == (Fault.SERVER_ERROR, 0.1)
    for wrong in ("500", "500=often", "boom=1", "=1"):
        with pytest.raises(SettingsError, match="KIND=PROBABILITY"):
            parse_fault(wrong)
