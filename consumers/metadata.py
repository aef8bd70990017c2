"""The JSON object that a publisher may hang on an event, as the domain carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas import canonical


def metadata_json(metadata: Mapping[str, Any] | None) -> bytes | None:
    """The bytes of a metadata object; None where there is none.

    Canonical as the journal is, so that a rebuild from the journal gives the same bytes and the same hashes.
    """
    return None if metadata is None else canonical.dump(metadata)
