"""Events as a careful publisher makes them, of every type there is: out of their schemas, or like the examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

from consumers.translate import TRANSLATIONS
from schemas.examples import example
from schemas.json_schemas import message_schema
from schemas.registry import EVENT_TYPES

Document = dict[str, Any]
Maker = Callable[[Random], Any]

TYPES = tuple(sorted(EVENT_TYPES.keys() & TRANSLATIONS.keys()))
TEXTS = (
    "a", "1", "EUR", "JPY", "XXX", "411", "5811", "FRA", "wallet:1", "platform:cash", "customer_balance:7", "in", "out",
    "liability", "asset", "active", "100.25", "0.5", "2026-03-01", "2026-03-01T09:30:00Z", "1970-01-01T00:00:00+00:00",
    "2199-12-31T23:59:59.999999Z", "2026-03-01t09:30:00.123456789-11:30", "01890a5d-ac96-774b-bcce-b302099a8057",
    "ünïcödé ✓", "𝄞 clef", "  spaced  ", "x" * 64, "x" * 200, 'quote " and \\ slash', "a/b?c=d&e", "null", "true",
)  # fmt: skip
INTEGERS = (0, 1, 2, 3, 99, 100, 1_234, 10**6, 2**31, 2**53, 2**63 - 1, 2**63, -1, -100, -(2**63), 10**39)
METADATA_LEAVES = ("x", "", "é", 0, 1.5, -3, 1e22, 1e-9, 2**60, 10**30, True, None, 0.1, 123456789.125)


def from_schema(chance: Random, event_type: str) -> Document:
    """An event of this type as its schema allows it; what a schema can't say may be wrong with it."""
    document: Document = _maker_of(event_type)(chance)
    if chance.random() < 0.9:
        document["specversion"], document["type"] = "1.0", event_type
    return document


def like_example(chance: Random, event_type: str) -> Document:
    """An event of this type that must be read: the published example with other ids, amounts and extras."""
    document, fields = dict(_example(event_type)), _fields(event_type)
    data = {name: _varied(chance, name, value, fields) for name, value in document["data"].items()}
    if "metadata" in fields and chance.random() < 0.5:
        data["metadata"] = metadata(chance)
    if "description" in fields and chance.random() < 0.5:
        data["description"] = chance.choice(TEXTS)
    document |= {"id": f"evt-{chance.getrandbits(40)}", "data": data}
    if chance.random() < 0.3:
        document["idempotencykey"] = f"key-{chance.getrandbits(30)}"
    if chance.random() < 0.3:
        document |= {"subject": "an attribute that nobody knows", "partitionkey": chance.getrandbits(8)}
    return document


_example = cache(example)


@cache
def _fields(event_type: str) -> Mapping[str, Any]:
    schema = message_schema(event_type)
    fields: Mapping[str, Any] = schema["$defs"][schema["properties"]["data"]["$ref"].rpartition("/")[2]]["properties"]
    return fields


def _varied(chance: Random, name: str, value: Any, fields: Mapping[str, Any]) -> Any:
    if isinstance(value, int) and "amount" in name:
        return chance.choice((chance.randint(1, 10**6), *INTEGERS))
    if isinstance(value, str) and name.endswith("_id") and fields[name].get("maxLength") == 200:
        return f"{value}-{chance.getrandbits(20)}"
    return value


def metadata(chance: Random, depth: int = 3) -> Document:
    """A publisher's own object, within the bounds of the contract."""
    kept: Document = {}
    for _ in range(chance.randint(0, 3)):
        kept[chance.choice(TEXTS)[:20]] = _metadata_value(chance, depth)
    return kept


def _metadata_value(chance: Random, depth: int) -> Any:
    roll = chance.random()
    if depth and roll < 0.2:
        return metadata(chance, depth - 1)
    if depth and roll < 0.4:
        return [_metadata_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    return chance.choice(METADATA_LEAVES)


# --- out of a schema ------------------------------------------------------------------------------------------------


@cache
def _maker_of(event_type: str) -> Maker:
    schema = message_schema(event_type)
    return _maker(schema, schema["$defs"])


def _maker(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Maker:
    """What makes values of a schema; only what our own schemas use is known here."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return lambda chance: _definition(name, definitions)(chance)
    if "const" in schema:
        return lambda chance: schema["const"]
    if "enum" in schema:
        return lambda chance: chance.choice(schema["enum"])
    if "anyOf" in schema:
        makers = [_maker(each, definitions) for each in schema["anyOf"]]
        return lambda chance: chance.choice(makers)(chance)
    match schema.get("type"):
        case "object":
            return _object_maker(schema, definitions)
        case "array":
            return _array_maker(schema, definitions)
        case "string":
            return _text_maker(schema)
        case "integer":
            least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63)
            fitting = [number for number in INTEGERS if least <= number <= most] or [least]
            return lambda chance: chance.choice(fitting)
        case "boolean":
            return lambda chance: chance.random() < 0.5
        case "null":
            return lambda chance: None
    return lambda chance: chance.choice((None, *TEXTS))


_definitions: dict[tuple[int, str], Maker] = {}


def _definition(name: str, definitions: Mapping[str, Any]) -> Maker:
    place = (id(definitions), name)
    if place not in _definitions:
        _definitions[place] = _maker(definitions[name], definitions)
    return _definitions[place]


def _object_maker(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Maker:
    if "properties" not in schema:
        if "propertyNames" in schema and schema.get("maxProperties") == 64:
            return metadata
        values = _maker(schema.get("additionalProperties") or {}, definitions)
        return lambda chance: {chance.choice(TEXTS): values(chance) for _ in range(chance.randint(0, 3))}
    required = frozenset(schema.get("required", ()))
    makers = {name: _maker(each, definitions) for name, each in schema["properties"].items()}

    def make(chance: Random) -> Document:
        return {name: each(chance) for name, each in makers.items() if name in required or chance.random() < 0.3}

    return make


def _array_maker(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Maker:
    items = _maker(schema.get("items") or {}, definitions)
    least = schema.get("minItems", 0)
    return lambda chance: [items(chance) for _ in range(chance.randint(least, least + 3))]


def _text_maker(schema: Mapping[str, Any]) -> Maker:
    fitting: Sequence[str] = [text for text in TEXTS if _fits(text, schema)] or TEXTS
    return lambda chance: chance.choice(fitting)


def _fits(text: str, schema: Mapping[str, Any]) -> bool:
    long_enough = schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text))
    return long_enough and re.search(schema.get("pattern", ""), text) is not None
