"""One way to write a JSON value down, so that what is equal has equal bytes."""

from __future__ import annotations

import json
from typing import Any

import orjson

_SORTED = orjson.OPT_SORT_KEYS


def dump(value: Any) -> bytes:
    """Write `value` as JSON in UTF-8, keys sorted, nothing between tokens; integers keep all their digits."""
    try:
        return orjson.dumps(value, option=_SORTED)
    except TypeError:
        # orjson refuses integers over 64 bits, and amounts of up to 40 digits are journaled before they are rejected.
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
