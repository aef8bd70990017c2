"""One shard's journal and outbox, read side by side from the beginning, against the subscriber and the model."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from infra.outbox import DEAD_LETTER, TOPICS, Output, unpack
from infra.settings import Settings
from tests.campaign.copies import Copies, Partition
from tests.campaign.ends import FIRST_SHARD, Ends
from tests.campaign.judge import Judge
from tests.campaign.seen import Place, digest
from tests.campaign.subscriber import Notes
from tests.campaign.tables import differences, parked_of
from tests.model import Model

SHOWN = 12


@dataclass(slots=True)
class Findings:
    """What is wrong with a shard, and how much of what was looked at."""

    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class ShardCase:
    """Everything that is held against one shard."""

    def __init__(
        self,
        shard: int,
        notes: Notes,
        ends: Ends,
        leftover: Mapping[Partition, Sequence[int]],
        tenants: Counter[str],
        lost: Set[Place],
    ) -> None:
        self.shard, self.notes, self.ends, self.lost = shard, notes, ends, lost
        self.findings = Findings()
        self._copies = Copies(Model(), ends.ends, FIRST_SHARD + shard, leftover, self._copy, ends.prefix)
        self._judge = Judge(self._copies)
        self._copies.begin(tenants.elements())
        self._topics: dict[int, array[int]] = {}
        self._over: set[str] = set()

    async def hear(self, settings: Settings) -> Findings:
        """Go through all of it."""
        connection = await asyncpg.connect(settings.asyncpg_dsn)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await self._hear(connection)
        finally:
            await connection.close()
        findings = self.findings
        findings.counts.update(self._judge.counts)
        findings.faults += [*self._judge.faults[: 2 * SHOWN], *self._seal_faults()]
        left = [place for place in self.notes.seen.left() if place[1] == self.shard and place not in self.lost]
        findings.faults += [f"output {place} was published and is in no book" for place in left[:SHOWN]]
        return findings

    def _copy(self, place: Partition, offset: int) -> Any:
        event = self.ends.event(place, offset)
        assert event is not None
        return event

    async def _hear(self, connection: Any) -> None:
        last = dict(
            await connection.fetch("SELECT tenant_id, max(seq) FROM events WHERE shard = $1 GROUP BY 1", self.shard)
        )
        parked = await parked_of(connection, self.shard)
        rows = connection.cursor("SELECT * FROM events WHERE shard = $1 ORDER BY seq", self.shard, prefetch=1_000)
        events = aiter(rows)
        row = await anext(events, None)
        pending: list[Output] = []
        async for batch in self._batches(connection):
            for output in batch:
                pending.append(output)
                if row is not None and len(pending) == row["outputs"]:
                    self._one(row, pending)
                    if last[row["tenant_id"]] == row["seq"]:
                        self._over.add(row["tenant_id"])
                    pending = []
                    row = await anext(events, None)
            await self._close(connection, parked, [each for each in self._over if not self._copies.left[each]])
        if pending or row is not None:
            self.findings.faults.append(f"shard {self.shard}: journal and outbox don't end together")
        # First, whatever else is wrong: what was lost.
        self._judge.faults[:0] = self._copies.end()[:SHOWN]
        await self._close(connection, parked, list(self._over))

    async def _batches(self, connection: Any) -> AsyncIterator[list[Output]]:
        """The outputs of each row of the outbox, dead letters left out; each is held against what was seen of it."""
        query = "SELECT * FROM outbox WHERE shard = $1 ORDER BY seq_last"
        async for batch in connection.cursor(query, self.shard, prefetch=10):
            counted = self._topics.setdefault(batch["epoch"], array("B"))
            outputs = []
            for seq, output in enumerate(unpack(batch["body"]), batch["seq_first"]):
                self._seen((batch["epoch"], self.shard, seq), output)
                counted.extend([255] * (seq - len(counted)))
                counted.append(output.topic)
                if output.type != DEAD_LETTER:
                    outputs.append(output)
            yield outputs

    def _seen(self, place: Place, output: Output) -> None:
        self.findings.counts["outputs"] += 1
        found = self.notes.seen.take(place)
        if found != digest(TOPICS[output.topic], output.key, output.value) and len(self.findings.faults) < 100:
            how = "was published otherwise" if found else "was never published"
            self.findings.faults.append(f"output {place} {how}")

    def _one(self, row: asyncpg.Record, outputs: Sequence[Output]) -> None:
        event = None
        if row["resumes"] is None and row["topic"] is not None:
            event = self.ends.event(self.ends.place_of(row["topic"], row["partition"]), row["offset"])
        self._judge.hear(row, outputs, event)

    async def _close(self, connection: Any, parked: Mapping[str, list[str]], tenants: Sequence[str]) -> None:
        for tenant in tenants:
            self._over.remove(tenant)
            book = self._judge.end(tenant)
            self._judge.faults += await differences(connection, self.shard, tenant, book, parked.get(tenant, []))

    def _seal_faults(self) -> list[str]:
        """The seals follow one another, and count what is in the books for their range."""
        faults = []
        for epoch, told in self._topics.items():
            reached = None
            for first, last, counts in self.notes.seals.get((epoch, self.shard), []):
                if reached is not None and first != reached + 1:
                    faults.append(f"shard {self.shard}: a seal goes on with {first} after {reached}")
                found = Counter(told[first : last + 1])
                if last < len(told) and {TOPICS[index]: n for index, n in found.items() if index != 255} != counts:
                    faults.append(f"shard {self.shard}: the seal of {first} to {last} counts {counts}, not {found}")
                reached = last
            beyond = [(epoch, self.shard, seq) for seq in range(len(told), (reached or 0) + 1)]
            if (reached or 0) < len(told) - 1 or not all(place in self.lost for place in beyond):
                faults.append(
                    f"shard {self.shard}: epoch {epoch} is sealed up to {reached}, the books end at {len(told) - 1}"
                )
        return faults[:SHOWN]
