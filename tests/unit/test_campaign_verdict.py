"""The campaign's judge on ledgers in memory: it believes what is right, and misses nothing that was lost."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from consumers.translate import to_event
from domain.authorizations import AuthorizationAdvised, AuthorizationRequested
from domain.books import Books
from domain.decide import decide_batch
from domain.events import Event, Handled
from domain.expiry import HoldExpired
from domain.reservations import AuthorizationStatus, HoldStatus, Resolution, line_key
from infra import outbox
from infra.expiry import expiry_event
from infra.outputs import OutputWriter
from infra.postgres.save_journal import _EVENTS, _event_row
from infra.records import InputRecord, Origin
from schemas.wire import WireEvent, read, with_resolution
from tests.campaign.copies import Copies, Partition
from tests.campaign.judge import Judge
from tests.campaign.load import Drafted, again, story
from tests.model import Model

STORIES, PARTITIONS = 600, 3
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PARKABLE = ("refund.", "dispute.", "payout.failed", "transfer.reversed")


@dataclass
class Topics:
    """What was published: by topic and partition, in the order of the offsets."""

    records: dict[Partition, list[Drafted]] = field(default_factory=dict)

    def publish(self, drafted: Drafted, partition: int) -> tuple[Partition, int]:
        queue = self.records.setdefault((drafted.topic, partition), [])
        queue.append(drafted)
        return (drafted.topic, partition), len(queue) - 1


def published(seed: int) -> Topics:
    """Stories of a few tenants, and much of it once more, anywhere and under other ids."""
    chance, topics = random.Random(seed), Topics()
    for number in range(STORIES):
        for drafted in story(seed, number):
            topics.publish(drafted, 0)
        for drafted in story(seed, chance.randrange(max(0, number - 40), number + 1)) if chance.random() < 0.4 else ():
            topics.publish(again(drafted, chance.choice([0, 1, 2])), chance.randrange(PARTITIONS))
    return topics


class Clerk:
    """A ledger in memory, whose rows and outputs are as those of the real one."""

    def __init__(self, topics: Topics, seed: int, *, lost: tuple[Partition, int] | None = None) -> None:
        self.topics, self.lost = topics, lost
        self.chance = random.Random(f"clerk {seed}")
        self.books = Books(shard=0, epoch=1, next_seq=1, recorded_at=NOW)
        self.rows: list[tuple[dict[str, Any], list[outbox.Output]]] = []
        self.duplicates = 0
        self._head = bytes(32)

    def work(self) -> None:
        """Read all there is, in batches of any partition: a payment may be read long after its refund."""
        read_to = dict.fromkeys(self.topics.records, 0)
        while open_ones := [place for place, at in read_to.items() if at < len(self.topics.records[place])]:
            place = self.chance.choice(open_ones)
            size, begin = self.chance.choice([1, 3, 20]), read_to[place]
            read_to[place] = begin + size
            self._apply([event for event in self._events(place, begin, size) if event is not None])
            if self.chance.random() < 0.1:
                self._apply(list(self._overdue())[:5])

    def _events(self, place: Partition, begin: int, size: int) -> Iterator[Event | None]:
        for offset, drafted in enumerate(self.topics.records[place][begin : begin + size], begin):
            yield None if (place, offset) == self.lost else self._event(place, offset, drafted)

    def _event(self, place: Partition, offset: int, drafted: Drafted) -> Event | None:
        wire = read(drafted.value, (), drafted.topic)
        if not isinstance(wire, WireEvent):
            return None
        record = InputRecord(place[0], UUID(int=0), place[1], offset, 0, drafted.key, drafted.value, ())
        event = to_event(wire, record)
        if isinstance(event.command, AuthorizationRequested | AuthorizationAdvised):
            lines = self._lines(event)
            event.command.resolution = Resolution(frozenset(lines), lines)
            event.carried.data = with_resolution(event.carried.data, {"categories": sorted(lines), "lines": lines})
        return event

    def _lines(self, event: Event) -> dict[str, str]:
        """As the resolvers by the data would answer."""
        command: Any = event.command
        card = next(
            (each for each in self.books.cards._things.values() if each.tenant_id == event.tenant_id
             and each.card_id == command.card_id and each.owner_ref is not None), None,
        )  # fmt: skip
        if card is None or command.merchant["mcc"] == "9999":
            return {}
        code = "travel" if command.merchant["mcc"] == "4511" else "food"
        line_id = f"{code}:{int(card.owner_ref[-12:])}"
        line = self.books.lines.get(line_key(event.tenant_id, line_id))
        return {} if line is None or line.terminated else {code: line_id}

    def _overdue(self) -> Iterator[Event]:
        for hold in list(self.books.holds._things.values()):
            if hold.status is HoldStatus.PENDING and hold.expires_at <= self.books.recorded_at:
                yield expiry_event(hold.tenant_id, HoldExpired(hold.expires_at, hold.hold_id))
        for paid in list(self.books.authorizations._things.values()):
            ends = paid.expires_at
            if paid.status is AuthorizationStatus.APPROVED and ends is not None and ends <= self.books.recorded_at:
                yield expiry_event(paid.tenant_id, HoldExpired(ends, None, paid.provider, paid.external_id))

    def _apply(self, events: list[Event]) -> None:
        self.books.recorded_at += timedelta(milliseconds=5)
        writer = OutputWriter(
            epoch=1, shard=0, next_seq=self.books.next_seq, head=self._head, recorded_at=self.books.recorded_at,
            partitions=dict.fromkeys(outbox.TOPICS, 1), value_bytes_max=dict.fromkeys(outbox.TOPICS, 1 << 20),
        )  # fmt: skip
        decided = decide_batch(events, self.books)
        self.duplicates += decided.duplicates
        for handled in decided.handled:
            self._write(writer, handled)
        self._head = writer.head
        # Those that wait are read from their rows in later batches, and where their records stood is forgotten then.
        for queue in self.books.waiting.values():
            for event in queue:
                event.carried = Origin(event.carried.data)

    def _write(self, writer: OutputWriter, handled: Handled) -> None:
        before = len(writer.frames)
        writer.handled(handled)
        outputs = list(outbox.unpack(outbox.pack(writer.frames[before:])))
        self.rows.append((dict(zip(_EVENTS.columns, _event_row(self.books, handled), strict=True)), outputs))


def judged(clerk: Clerk) -> tuple[Judge, list[str]]:
    """What the judge says of a clerk's rows."""
    records = clerk.topics.records
    ends = {place: array("B", bytes(len(queue))) for place, queue in records.items()}
    for row, _ in clerk.rows:
        if row["resumes"] is None and row["topic"] is not None:
            ends[row["topic"], row["partition"]][row["offset"]] = 1
    leftover = {
        place: [offset for offset, drafted in enumerate(queue) if drafted.event and not ends[place][offset]]
        for place, queue in records.items()
    }
    tenants = [event["tenantid"] for place, offsets in leftover.items() for offset in offsets
               if (event := records[place][offset].event)]  # fmt: skip

    def event_of(place: Partition, offset: int) -> dict[str, Any]:
        return records[place][offset].event or {}

    copies = Copies(Model(), ends, 1, leftover, event_of)
    judge = Judge(copies)
    copies.begin(tenants)
    for row, outputs in clerk.rows:
        named = row["resumes"] is None and row["topic"] is not None
        judge.hear(row, outputs, event_of((row["topic"], row["partition"]), row["offset"]) if named else None)
    return judge, judge.faults + copies.end()


def clerk_of(seed: int, *, lost: tuple[Partition, int] | None = None) -> Clerk:
    clerk = Clerk(published(seed), seed, lost=lost)
    clerk.work()
    return clerk


@pytest.mark.parametrize("seed", range(4))
def test_the_verdict_on_a_faultless_ledger_is_that_nothing_was_lost(seed: int) -> None:
    clerk = clerk_of(seed)
    judge, faults = judged(clerk)
    assert faults == []
    assert clerk.duplicates > 50
    # What the verdict has to understand did happen.
    resumed = [row for row, _ in clerk.rows if row["resumes"] is not None]
    assert any(row["outcome"] == "rejected" and row["topic"] is None for row in resumed)
    assert judge.counts["expired"] > 0
    assert judge.counts["authorization.decided.v1"] > 10
    assert +judge.copies.left == {}


def test_a_record_that_the_ledger_lost_is_named() -> None:
    clerk = clerk_of(0)
    ids = [drafted.event["id"].split("~")[0] for queue in clerk.topics.records.values() for drafted in queue
           if drafted.event]  # fmt: skip
    alone = [
        row for row, _ in clerk.rows
        if row["topic"] is not None and row["resumes"] is None and ids.count(row["event_id"]) == 1
    ]  # fmt: skip
    chance = random.Random(1)
    chosen = [*chance.sample(alone, 6), *chance.sample([r for r in alone if r["type"].startswith(PARKABLE)], 6)]
    for row in chosen:
        place = (row["topic"], row["partition"]), row["offset"]
        _, faults = judged(clerk_of(0, lost=place))
        named = [fault for fault in faults if f" {row['event_id']} at {place} has no end" in fault]
        assert named, (row["event_id"], faults[:3])
