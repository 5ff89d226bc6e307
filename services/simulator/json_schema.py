"""Makes a JSON value that is valid against a schema.

Known names (`level`, `quotes` ... from the judge) get the value wanted for them, brought into what the schema allows;
every other place gets the smallest plain value: all properties of an object, `minItems` elements, `minLength`
characters, the number nearest to 0, null where null is allowed. Understood is the subset that OpenAI's structured
outputs need; a keyword outside of it is refused, since ignoring it could produce an invalid value.
"""

import math
from collections.abc import Mapping
from typing import TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Schema: TypeAlias = Mapping[str, Json]

_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment"})
_KEYWORDS = (
    _ANNOTATIONS
    | {"type", "enum", "const", "anyOf", "$ref", "$defs", "definitions"}
    | {"properties", "required", "additionalProperties"}
    | {"items", "minItems", "maxItems", "minLength", "maxLength"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
_MAX_DEPTH = 32
_FILLER = "simulated"


class SchemaError(ValueError):
    """The schema is malformed, contradictory, or uses a keyword that is not supported here."""


def generate(schema: Schema, known: Mapping[str, Json]) -> Json:
    """Return a value valid against `schema`.

    Args:
        schema: a JSON Schema; `$ref` may point into itself (`#`, `#/$defs/...`).
        known: wanted values by property name, wherever in the schema the name occurs.

    Raises:
        SchemaError: no value could be made.
    """
    return _Walk(schema, known).value(schema, None, 0)


class _Walk:
    def __init__(self, root: Schema, known: Mapping[str, Json]) -> None:
        self._root = root
        self._known = known

    def value(self, schema: Schema, wanted: Json, depth: int) -> Json:
        """Make the value of one place; `wanted` None means that nothing special is wanted."""
        if unknown := schema.keys() - _KEYWORDS:
            raise SchemaError(f"unsupported keywords: {', '.join(sorted(unknown))}")
        if depth > _MAX_DEPTH:
            raise SchemaError("nested too deeply, or without end")
        if "$ref" in schema:
            return self.value(self._resolve(schema["$ref"]), wanted, depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return _nearest(_array(schema["enum"], "enum"), wanted)
        if "anyOf" in schema:
            return self._any_of(_array(schema["anyOf"], "anyOf"), wanted, depth)
        return self._typed(schema, _type(schema, wanted), wanted, depth)

    def _typed(self, schema: Schema, kind: Json, wanted: Json, depth: int) -> Json:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, wanted, depth)
            case "string":
                return _string(schema, wanted if isinstance(wanted, str) else _FILLER)
            case "integer" | "number":
                number = wanted if isinstance(wanted, int | float) else 0
                return _number(schema, number, whole=kind == "integer")
            case "boolean":
                return wanted if isinstance(wanted, bool) else False
            case "null":
                return None
            case _:
                raise SchemaError(f"unknown type {kind!r}")

    def _object(self, schema: Schema, depth: int) -> Json:
        properties = schema.get("properties", {})
        required = _array(schema.get("required", []), "required")
        if not isinstance(properties, dict) or not all(name in properties for name in required):
            raise SchemaError("'properties' must be an object that has all 'required' names")
        return {name: self.value(_subschema(sub), self._known.get(name), depth + 1) for name, sub in properties.items()}

    def _array(self, schema: Schema, wanted: Json, depth: int) -> Json:
        items = _subschema(schema.get("items", {}))
        fewest, most = _bound(schema, "minItems", 0), _bound(schema, "maxItems", math.inf)
        if fewest > most:
            raise SchemaError("'minItems' is above 'maxItems'")
        elements = wanted[: int(min(most, len(wanted)))] if isinstance(wanted, list) else []
        elements += [None] * (int(fewest) - len(elements))
        return [self.value(items, element, depth + 1) for element in elements]

    def _any_of(self, options: list[Json], wanted: Json, depth: int) -> Json:
        schemas = [_subschema(option) for option in options]
        if not schemas:
            raise SchemaError("'anyOf' is empty")
        # Where nothing is wanted null fits best, which also ends a schema that contains itself.
        fitting = (schema for schema in schemas if _accepts(schema, wanted))
        return self.value(next(fitting, schemas[0]), wanted, depth + 1)

    def _resolve(self, reference: Json) -> Schema:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(f"cannot resolve {reference!r}")
        place: Json | Schema = self._root
        for step in reference.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(place, Mapping) or key not in place:
                raise SchemaError(f"cannot resolve {reference!r}")
            place = place[key]
        return _subschema(place)


def _natural_type(wanted: Json) -> str:
    match wanted:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _accepts(schema: Schema, wanted: Json) -> bool:
    """Tell whether `wanted` has a type that the schema names."""
    kinds = schema.get("type")
    named = kinds if isinstance(kinds, list) else [kinds]
    natural = _natural_type(wanted)
    return natural in named or (natural == "integer" and "number" in named)


def _type(schema: Schema, wanted: Json) -> Json:
    """Return the type to produce: that of `wanted` where the schema leaves a choice."""
    natural = _natural_type(wanted)
    kinds = schema.get("type", "object" if "properties" in schema else natural)
    if not isinstance(kinds, list):
        return kinds
    if natural == "integer" and "integer" not in kinds:
        natural = "number"
    return natural if natural in kinds else next(iter(kinds), None)


def _subschema(schema: Json | Schema) -> Schema:
    if schema is True:
        return {}
    if not isinstance(schema, Mapping):
        raise SchemaError("a schema must be an object")
    return schema


def _array(value: Json, keyword: str) -> list[Json]:
    if not isinstance(value, list):
        raise SchemaError(f"'{keyword}' must be an array")
    return value


def _bound(schema: Schema, keyword: str, default: float) -> float:
    bound = schema.get(keyword, default)
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        raise SchemaError(f"'{keyword}' must be a number")
    return bound


def _nearest(options: list[Json], wanted: Json) -> Json:
    if not options:
        raise SchemaError("'enum' is empty")
    if wanted in options:
        return wanted
    numbers = [option for option in options if isinstance(option, int | float)]
    if numbers and isinstance(wanted, int | float):
        return min(numbers, key=lambda number: abs(number - wanted))
    return options[0]


def _string(schema: Schema, wanted: str) -> str:
    shortest, longest = _bound(schema, "minLength", 0), _bound(schema, "maxLength", math.inf)
    if shortest > longest:
        raise SchemaError("'minLength' is above 'maxLength'")
    return wanted.ljust(int(shortest), ".")[: int(min(longest, max(shortest, len(wanted))))]


def _number(schema: Schema, wanted: float, *, whole: bool) -> float:
    low, high = _bound(schema, "minimum", -math.inf), _bound(schema, "maximum", math.inf)
    above, below = _bound(schema, "exclusiveMinimum", -math.inf), _bound(schema, "exclusiveMaximum", math.inf)
    if math.isfinite(above):
        low = max(low, math.floor(above) + 1 if whole else math.nextafter(above, math.inf))
    if math.isfinite(below):
        high = min(high, math.ceil(below) - 1 if whole else math.nextafter(below, -math.inf))
    step = _bound(schema, "multipleOf", 1 if whole else 0)
    number = min(max(wanted, low), high)
    if step > 0:
        number = round(number / step) * step
        number += step if number < low else -step if number > high else 0
    if not low <= number <= high:
        raise SchemaError("no number lies within the bounds")
    return int(number) if whole else number
