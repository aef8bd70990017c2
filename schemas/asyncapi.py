"""The AsyncAPI 3.0 document of the ledger, made from the models, the topics and the examples."""

from __future__ import annotations

from typing import Any

from schemas.envelope import CONTENT_TYPE
from schemas.examples import example, example_headers
from schemas.json_schemas import Schema, message_parts, message_types
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES
from schemas.topics import TOPICS, Topic

_SCHEMAS = "#/components/schemas/{model}"
_BINDING = "0.5.0"
_DESCRIPTION = """\
A double-entry payments ledger that lives on Kafka. It applies each event on its input topics exactly once, and \
publishes every change that comes of it exactly once to `read_committed` subscribers.

Topic names have the prefix `ledger.` unless the operator chose another. Amounts are JSON integers of up to 64 bits in \
minor units: read them with a parser that keeps all their digits."""
_CONFIG_TOLD = ("cleanup.policy", "compression.type", "max.message.bytes", "retention.ms", "retention.bytes")
_DEAD_LETTER = "dead.letter"
_COUNTER = {"type": "string", "pattern": "^[0-9]+$"}


def asyncapi(*, version: str, prefix: str = "ledger.") -> dict[str, Any]:
    """Give the document, for topics with this prefix."""
    topics = [topic for topic in TOPICS.values() if topic.types or topic.direction == "out"]
    messages: dict[str, Any] = {}
    definitions: dict[str, Schema] = {}
    for event_type in message_types():
        payload, parts = message_parts(event_type, _SCHEMAS)
        messages[event_type] = _message(event_type, payload)
        definitions |= parts
    messages[_DEAD_LETTER] = _dead_letter()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:ledgerstream",
        "info": {
            "title": "ledgerstream",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {topic.name: _channel(topic, prefix) for topic in topics},
        "operations": {_operation_name(topic): _operation(topic) for topic in topics},
        "components": {"messages": messages, "schemas": _plain_references(definitions)},
    }


def _channel(topic: Topic, prefix: str) -> dict[str, Any]:
    return {
        "address": f"{prefix}{topic.name}",
        "description": topic.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages_on(topic)},
        "bindings": {"kafka": {"topicConfiguration": _configuration(topic), "bindingVersion": _BINDING}},
    }


def _operation(topic: Topic) -> dict[str, Any]:
    channel = f"#/channels/{topic.name}"
    return {
        "action": "receive" if topic.direction == "in" else "send",
        "summary": topic.description,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in _messages_on(topic)],
    }


def _operation_name(topic: Topic) -> str:
    return f"{'receive' if topic.direction == 'in' else 'publish'}-{topic.name}"


def _messages_on(topic: Topic) -> tuple[str, ...]:
    return topic.types or (_DEAD_LETTER,)


def _configuration(topic: Topic) -> dict[str, Any]:
    """Give the broker's settings that others notice; the Kafka binding wants numbers, and a list of policies."""
    told = {name: value for name, value in topic.config.items() if name in _CONFIG_TOLD}
    settings: dict[str, Any] = {
        name: int(value) if value.lstrip("-").isdigit() else value for name, value in told.items()
    }
    return settings | {"cleanup.policy": [settings["cleanup.policy"]]}


def _message(event_type: str, payload: Schema) -> dict[str, Any]:
    headers = example_headers(event_type)
    message = {
        "name": event_type,
        "title": event_type,
        "summary": payload["description"],
        "contentType": CONTENT_TYPE,
        "payload": _plain_references(payload),
        "bindings": _key_binding(event_type),
        "examples": [{"payload": example(event_type), **({"headers": headers} if headers else {})}],
    }
    return message | {"headers": _output_headers(event_type)} if headers else message


def _key_binding(event_type: str) -> dict[str, Any]:
    known = EVENT_TYPES.get(event_type)
    key = TOPICS[known.topic].key if known else OUTPUT_TYPES[event_type].key
    kafka = {"key": {"type": "string", "description": f"`{key}`, partitioned by murmur2."}, "bindingVersion": _BINDING}
    return {"kafka": kafka}


def _output_headers(event_type: str) -> Schema:
    properties: dict[str, Schema] = {
        "content-type": {"type": "string", "const": CONTENT_TYPE},
        "ce_type": {"type": "string", "const": event_type},
    }
    if event_type != "ledger.sealed.v1":
        properties |= dict.fromkeys(("ledger-epoch", "ledger-shard", "ledger-seq"), _COUNTER)
        properties["traceparent"] = {"type": "string", "description": "The W3C trace context of its cause."}
    required = [name for name in properties if name != "traceparent"]
    return {"type": "object", "properties": properties, "required": required}


def _dead_letter() -> dict[str, Any]:
    places = ("ledger-epoch", "ledger-shard", "ledger-seq", "dlq-partition", "dlq-offset")
    texts = ("dlq-topic", "dlq-timestamp", "dlq-code", "dlq-message", "dlq-group")
    properties = dict.fromkeys(places, _COUNTER) | {name: {"type": "string"} for name in texts}
    return {
        "name": _DEAD_LETTER,
        "title": "A dead letter",
        "summary": "A record that was no event: its original value, byte for byte, its headers, and these.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": properties, "required": list(properties)},
    }


def _plain_references(part: Any) -> Any:
    """Wrap references that have siblings: in the schemas of AsyncAPI, of draft 7, a `$ref` hides what is beside it."""
    if isinstance(part, list):
        return [_plain_references(child) for child in part]
    if not isinstance(part, dict):
        return part
    plain = {name: _plain_references(child) for name, child in part.items()}
    if "$ref" in plain and len(plain) > 1:
        return {"allOf": [{"$ref": plain.pop("$ref")}], **plain}
    return plain
