"""Which batches are decided before their shard is locked: small ones, on shards that nobody else writes to just now."""

from __future__ import annotations

import time

from infra.records import OffsetSwap

EVENTS_MOST = 64
"""What more events write goes by COPY, statement after statement, and that needs the lock."""
LOCKED_SECONDS = 5.0
"""So long a shard is locked first after something was decided in vain."""


class Ahead:
    """What a process knows of its shards."""

    def __init__(self) -> None:
        self._locked_until: dict[int, float] = {}

    def suits(self, shard: int, events: int, offsets: OffsetSwap | None) -> bool:
        """Whether a batch of so many events is decided ahead."""
        if not 0 < events <= EVENTS_MOST:
            return False
        if offsets is not None and offsets.expected is None:
            # A partition that was never read has no position that could be locked.
            return False
        return time.monotonic() >= self._locked_until.get(shard, 0.0)

    def in_vain(self, shard: int) -> None:
        """Another process wrote to the shard meanwhile, or there were too many rows: it may be so again."""
        self._locked_until[shard] = time.monotonic() + LOCKED_SECONDS
