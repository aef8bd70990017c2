"""How a relay hears of new outbox rows: from a worker in its own process, or from Postgres."""

from __future__ import annotations

import asyncio

# Payload: the shard. Sent by the worker after its commit; inside the transaction it would halve small commits.
CHANNEL = "ledger_outbox"


class RelayWakeups:
    """One event a shard; `notify` after each commit of a worker in this process."""

    def __init__(self) -> None:
        self._events: dict[int, asyncio.Event] = {}

    def notify(self, shard: int) -> None:
        """There is something new in the outbox of this shard."""
        self.of(shard).set()

    def of(self, shard: int) -> asyncio.Event:
        if shard not in self._events:
            self._events[shard] = asyncio.Event()
        return self._events[shard]
