"""The files in docs/ that are made from the models, so that they can be compared and written again."""

from __future__ import annotations

import json
from typing import Any

from schemas.asyncapi import asyncapi
from schemas.examples import example
from schemas.json_schemas import message_schema, message_types


def documents(*, version: str) -> dict[str, str]:
    """Give the text of every made file by its path within docs/. The reference in events.md isn't one: see there."""
    files = {"asyncapi.json": as_text(asyncapi(version=version))}
    for event_type in message_types():
        files[f"schemas/{event_type}.json"] = as_text(message_schema(event_type))
        files[f"examples/{event_type}.json"] = as_text(example(event_type))
    return files


def as_text(document: dict[str, Any]) -> str:
    """Write a document for people and version control."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
