"""The JSON object that a publisher may hang on an event, as the domain carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def metadata_json(metadata: Mapping[str, Any] | None) -> bytes | None:
    """The bytes of a metadata object; None where there is none."""
    return None if metadata is None else orjson.dumps(metadata)
