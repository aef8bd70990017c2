"""JSON Schemas of whole messages, made from the models, for publishers and subscribers in other languages."""

from __future__ import annotations

from inspect import get_annotations
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from schemas.envelope import Envelope, OutputEnvelope
from schemas.fields import METADATA_KEYS_MAX, METADATA_SCHEMA, METADATA_TEXT_MAX, NO_NUL, Wire
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFS = "#/$defs/{model}"

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Says no more than is true: no titles made from names, and no default where a field is simply left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if "default" in made and made["default"] is None:
            del made["default"]
        return made


def message_types() -> list[str]:
    """Give all types of event, in and out, in the order of the contract."""
    return [*EVENT_TYPES, *OUTPUT_TYPES]


def message_schema(event_type: str) -> Schema:
    """Give the JSON Schema (2020-12) of a structured event of this type, its data under `$defs`."""
    schema, definitions = message_parts(event_type, DEFS)
    return {"$schema": DIALECT, "$id": f"urn:ledgerstream:{event_type}", **schema, "$defs": definitions}


def message_parts(event_type: str, ref_template: str) -> tuple[Schema, dict[str, Schema]]:
    """Give the schema of a whole event, and by name those that it refers to with `ref_template`."""
    model = model_of(event_type)
    is_output = event_type in OUTPUT_TYPES
    envelope = _model_schema(OutputEnvelope if is_output else Envelope, ref_template)[0]
    data, definitions = _model_schema(model, ref_template)
    definitions = {model.__name__: data, **definitions}
    if is_output:
        # A subscriber must not break when an output gains a field; that it has no other today is tested on our side.
        for definition in [envelope, *definitions.values()]:
            if "properties" in definition:
                definition.pop("additionalProperties", None)
    properties = envelope["properties"]
    properties["type"] = {"const": event_type}
    properties["data"] = {"$ref": ref_template.format(model=model.__name__)}
    whole = {"title": event_type, "description": data["description"], "type": "object"}
    return whole | {"properties": properties, "required": _required(event_type, envelope)}, definitions


def model_of(event_type: str) -> type[Wire]:
    """Give the model of the data of an event, in or out."""
    return (EVENT_TYPES.get(event_type) or OUTPUT_TYPES[event_type]).model


def _required(event_type: str, envelope: Schema) -> list[str]:
    required: list[str] = envelope["required"]
    known = EVENT_TYPES.get(event_type)
    if known and known.needs_key:
        key = envelope["properties"]["idempotencykey"]
        key |= key.pop("anyOf")[0]
        return [*required, "idempotencykey"]
    return required if known or event_type == "ledger.sealed.v1" else [*required, "tenantid"]


def _model_schema(model: type[Any], ref_template: str) -> tuple[Schema, dict[str, Schema]]:
    schema = model.model_json_schema(ref_template=ref_template, schema_generator=_Generator)
    definitions: dict[str, Schema] = schema.pop("$defs", {})
    _flatten_description(schema)
    for definition in definitions.values():
        _flatten_description(definition)
    if _say_what_metadata_holds({"schema": schema, "definitions": definitions}, ref_template):
        definitions["MetadataValue"] = _metadata_value(ref_template)
    schema["properties"] = _in_reading_order(model, schema)
    return schema, definitions


def _flatten_description(schema: Schema) -> None:
    """Leave the promise of a docstring; what follows it is for readers of the code."""
    if "description" in schema:
        schema["description"] = schema["description"].split("\n\n")[0].replace("\n", " ")


def _in_reading_order(model: type[Any], schema: Schema) -> Schema:
    """Put a type's own fields before those that it shares, and what is required first."""
    required, own = schema.get("required", []), get_annotations(model)
    names = sorted(schema["properties"], key=lambda name: (name not in required, name not in own))
    return {name: schema["properties"][name] for name in names}


def _say_what_metadata_holds(part: Any, ref_template: str) -> bool:
    """Bind the values in every metadata object under `part` to MetadataValue; says whether there was one."""
    if not isinstance(part, dict):
        return False
    if METADATA_SCHEMA.items() <= part.items():
        part["additionalProperties"] = {"$ref": ref_template.format(model="MetadataValue")}
        return True
    return sum(_say_what_metadata_holds(child, ref_template) for child in part.values()) > 0


def _metadata_value(ref_template: str) -> Schema:
    itself = {"$ref": ref_template.format(model="MetadataValue")}
    inner = {key: value for key, value in METADATA_SCHEMA.items() if key != "description"}
    return {
        "description": "Any JSON within the bounds of metadata.",
        "anyOf": [
            {"type": ["number", "boolean", "null"]},
            {"type": "string", "maxLength": METADATA_TEXT_MAX, "pattern": NO_NUL},
            {"type": "array", "items": itself},
            {**inner, "maxProperties": METADATA_KEYS_MAX, "additionalProperties": itself},
        ],
    }
