"""How a relay hears of new outbox rows: from a worker in its own process, or from Postgres."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque

from infra.outbox import OutboxRow

# Payload: the shard. Sent by the worker after its commit; inside the transaction it would halve small commits.
CHANNEL = "ledger_outbox"
# What is handed over in memory needn't be read from Postgres; more of it would only take room.
HANDED_ROWS_MAX = 8
HANDED_BYTES_MAX = 256 * 1024


class RelayWakeups:
    """One event a shard, and the rows that a worker in this process has just committed."""

    def __init__(self) -> None:
        self._events: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._elsewhere: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._handed: defaultdict[int, deque[OutboxRow]] = defaultdict(lambda: deque(maxlen=HANDED_ROWS_MAX))

    def notify(self, shard: int) -> None:
        """There is something new in the outbox of this shard, which only Postgres can tell."""
        self._elsewhere[shard].set()
        self._events[shard].set()

    def hand_over(self, shard: int, row: OutboxRow) -> None:
        """This row is committed. Without a relay here the next ones push it out; a large one is left in Postgres."""
        if len(row.body) > HANDED_BYTES_MAX:
            self.notify(shard)
            return
        self._handed[shard].append(row)
        self._events[shard].set()

    def of(self, shard: int) -> asyncio.Event:
        """Set when there is anything new; who waits for it clears it."""
        return self._events[shard]

    def elsewhere(self, shard: int) -> asyncio.Event:
        """Set besides when what is new wasn't handed over; who asks Postgres clears it."""
        return self._elsewhere[shard]

    def handed(self, shard: int) -> deque[OutboxRow]:
        """The rows handed over, the oldest first; who takes them takes them out."""
        return self._handed[shard]
