"""The reference part of docs/events.md: every topic and type with its fields and an example, made from the models."""

from __future__ import annotations

import json
from typing import Any

from schemas.examples import example
from schemas.json_schemas import DEFS, Schema, message_parts
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES
from schemas.topics import TOPICS, Topic

MARKER = "<!-- From here on made from the models by `ledgerstream schemas --out docs`. -->"


def reference() -> str:
    """Give the reference as Markdown, the marker first."""
    parts = [MARKER, ""]
    for direction, title in (("in", "Topics you publish to"), ("out", "Topics you subscribe to")):
        parts += [f"## {title}", ""]
        for topic in TOPICS.values():
            if topic.direction == direction and topic.types:
                parts += _topic(topic)
    return "\n".join(parts).rstrip() + "\n"


def _topic(topic: Topic) -> list[str]:
    lines = [f"### `ledger.{topic.name}`", "", f"{topic.description} Key: `{topic.key}`.", ""]
    for event_type in topic.types:
        lines += _type(event_type)
    return lines


def _type(event_type: str) -> list[str]:
    schema, definitions = message_parts(event_type, DEFS)
    name = schema["properties"]["data"]["$ref"].rpartition("/")[2]
    lines = [f"#### `{event_type}`", "", f"{schema['description']}{_kind(event_type)}", ""]
    lines += _fields(definitions[name])
    for other, definition in definitions.items():
        if other not in (name, "MetadataValue") and "properties" in definition:
            lines += [f"{other}: {definition['description']}", "", *_fields(definition)]
    body = json.dumps(example(event_type), ensure_ascii=False, indent=2)
    return [*lines, "```json", body, "```", ""]


def _kind(event_type: str) -> str:
    known = EVENT_TYPES.get(event_type)
    if known is None:
        return f" Key: `{OUTPUT_TYPES[event_type].key}`."
    kind = "A fact: it is never refused for a limit." if known.kind == "fact" else "A request: it may be refused."
    key = (
        f"The same again, by `{known.natural_key}`, changes nothing."
        if known.natural_key
        else "Needs `idempotencykey`."
    )
    return f" {kind} {key}"


def _fields(schema: Schema) -> list[str]:
    required = schema.get("required", [])
    rows = ["| field | if left out | what it is |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        mark = "required" if name in required else f"`{_default(field)}`" if "default" in field else ""
        rows.append(f"| `{name}` | {mark} | {_meaning(field)} |")
    return [*rows, ""] if schema["properties"] else []


def _default(field: Schema) -> str:
    """A default as it would stand in the JSON; a text without its quotes."""
    default = field["default"]
    return default if isinstance(default, str) else json.dumps(default)


def _meaning(field: Schema) -> str:
    text = f"{_kind_of_value(field)}. {field.get('description', '')}".strip()
    return text.replace("|", "\\|")


def _kind_of_value(field: Schema) -> str:
    match field:
        case {"$ref": ref}:
            return str(ref).rpartition("/")[2]
        case {"enum": choices}:
            return _choices(choices)
        case {"anyOf": branches}:
            return " or ".join(dict.fromkeys(_kind_of_value(branch) for branch in branches))
        case {"type": "array", "items": items}:
            return f"Array of {_kind_of_value(items)}"
        case {"type": "string"}:
            return _text(field)
        case {"type": kind}:
            return str(kind).capitalize()
    return "JSON"


def _choices(choices: list[Any]) -> str:
    return "One of the rejection codes" if len(choices) > 40 else ", ".join(f"`{choice}`" for choice in choices)


def _text(field: Schema) -> str:
    if "format" in field:
        return {"date-time": "Time", "date": "Date", "uuid": "UUID"}[field["format"]]
    if "maxLength" in field:
        return f"Text of {field.get('minLength', 0)} to {field['maxLength']} characters"
    return "Text"
