"""The simulator's structured output is valid against the schema that was asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator.json_schema import Json, Schema, SchemaError, generate


def test_known_names_get_the_values_wanted_for_them() -> None:
    schema: Schema = {
        "type": "object",
        "properties": {
            "level": {"type": "integer", "minimum": 1, "maximum": 5},
            "quotes": {"type": "array", "items": {"type": "string"}},
            "note": {"type": "string"},
        },
        "required": ["level", "quotes", "note"],
        "additionalProperties": False,
    }

    made = generate(schema, {"level": 4, "quotes": ["exactly so"]})

    assert made == {"level": 4, "quotes": ["exactly so"], "note": "simulated"}


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 3}, 3),
        ({"type": "integer", "exclusiveMaximum": 3}, 2),
        ({"enum": [0, 2, 4]}, 4),
        ({"type": "integer", "multipleOf": 4, "maximum": 11}, 8),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 7),
        ({"type": ["null", "number"]}, 7),
        ({"const": "fixed"}, "fixed"),
    ],
)
def test_a_wanted_value_outside_of_the_schema_becomes_the_nearest_inside(schema: Json, made: Json) -> None:
    whole: Schema = {"type": "object", "properties": {"level": schema}}

    assert generate(whole, {"level": 7}) == {"level": made}


def test_quotes_are_shortened_and_dropped_to_fit_never_altered() -> None:
    quotes: Json = {"type": "array", "maxItems": 1, "items": {"type": "string", "maxLength": 5}}

    made = generate({"type": "object", "properties": {"quotes": quotes}}, {"quotes": ["retry once", "then stop"]})

    assert made == {"quotes": ["retry"]}


def test_missing_elements_and_characters_are_filled_up() -> None:
    array: Schema = {"type": "array", "minItems": 2, "items": {"type": "string", "minLength": 12}}

    assert generate(array, {}) == ["simulated...", "simulated..."]


def test_references_are_followed_and_a_schema_that_contains_itself_ends_with_null() -> None:
    node: Json = {
        "type": "object",
        "properties": {"level": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    }

    assert generate({"$ref": "#/$defs/node", "$defs": {"node": node}}, {"level": 1}) == {"level": 1, "next": None}


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "string", "pattern": "^a$"}, "unsupported keywords: pattern"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no number"),
        ({"$ref": "#"}, "without end"),
        ({"$ref": "#/$defs/absent"}, "cannot resolve"),
        ({"type": "tuple"}, "unknown type"),
        ({"type": "object", "required": ["absent"]}, "required"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "minItems"),
        ({"enum": []}, "empty"),
        ({"type": "array", "items": 3}, "must be an object"),
    ],
)
def test_a_schema_that_cannot_be_met_is_refused(schema: Schema, complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        generate(schema, {})


@given(low=st.integers(-1000, 1000), width=st.integers(0, 50), wanted=st.integers(-2000, 2000))
def test_an_integer_lies_within_any_bounds(low: int, width: int, wanted: int) -> None:
    schema: Schema = {"type": "object", "properties": {"level": {"type": "integer", "minimum": low}}}
    bounded: Schema = {"properties": {"level": {"type": "integer", "minimum": low, "maximum": low + width}}}

    assert generate(schema, {"level": wanted}) == {"level": max(low, wanted)}
    assert generate(bounded, {"level": wanted}) == {"level": min(max(low, wanted), low + width)}
