"""What a ledger goes by, settled when its process started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRules:
    """What was settled when the process started.

    `partitions` and `value_bytes_max` are by the short name of the output topic; `group` stands in dead letters.
    """

    shards: int
    partitions: Mapping[str, int]
    value_bytes_max: Mapping[str, int]
    registered_only: bool = False
    patience_seconds: float = 86_400.0
    accounts_cached_max: int = 100_000
    hold_expiry_seconds: float = 7 * 86_400.0
    group: str = "ledgerstream"
    batch_seconds_max: float = 0.01
    """How long a batch of money may hold its shard where card payments come in."""
