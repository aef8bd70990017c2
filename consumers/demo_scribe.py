"""Writes the events of a story, and reckons beside it what they must come to: plain sums, nothing of the ledger's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson

from consumers.demo_figures import Figures

SOURCE = "shop"
ENTRY_ID = b"$entry_id"
"""Stands in a record for the id of an entry that only the ledger can tell."""

Leg = tuple[str, int]
"""An account and a signed amount: debit positive, credit negative, minor units."""

_TOPICS = {
    "payment": "payments",
    "refund": "refunds",
    "transfer": "transfers",
    "payout": "payouts",
    "dispute": "disputes",
    "account": "commands",
    "entry": "commands",
    "expense_category": "commands",
    "line_of_credit": "commands",
    "card": "commands",
    "authorization": "authorizations",
    "hold": "authorizations",
}


class Record(NamedTuple):
    """One record to publish: `topic` is the short name, `label` is what people call it.

    `entry_of` is the idempotency key of the command whose entry's id replaces `ENTRY_ID` in the value.
    """

    label: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    entry_of: str | None = None


@dataclass(slots=True)
class Stage:
    """Records that are published together: in order within a topic, in any order between topics.

    `resolver` is the category resolver that the ledger runs with meanwhile; `expiries` is how many holds and card
    payments the clock has ended, from the beginning of the story, when the stage is over.
    """

    name: str
    records: list[Record] = field(default_factory=list)
    resolver: str | None = None
    expiries: int = 0


@dataclass(slots=True)
class Story:
    """What is published, stage by stage, and the figures that it must come to."""

    stages: list[Stage]
    expected: Figures
    titles: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    """What people call a card payment, and when it was made, by the processor's id of it."""


class Scribe:
    """Writes a story from one moment on; `publish_*` methods add a record, the others reckon what one comes to."""

    def __init__(self, begin: datetime) -> None:
        self.now = begin
        self.expected = Figures()
        self.stages: list[Stage] = []
        self.titles: dict[str, tuple[datetime, str]] = {}
        self._numbers: Counter[str] = Counter()
        self._written: dict[str, Record] = {}

    # --- what is published ------------------------------------------------------------------------------------------

    def turn_to(self, name: str, begin: datetime, *, resolver: str | None = None) -> None:
        """Begin the next stage: what was published before it has been handled by then."""
        self.now = begin
        expiries = self.stages[-1].expiries if self.stages else 0
        self.stages.append(Stage(name, resolver=resolver, expiries=expiries))

    def publish(
        self,
        tenant: str,
        event_type: str,
        data: Mapping[str, Any],
        *,
        event_id: str | None = None,
        idempotency_key: str | None = None,
        topic: str | None = None,
        entry_of: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add an event and give back its id; `attributes` go into its envelope as they are."""
        family = event_type.partition(".")[0]
        self._numbers[family] += 1
        event_id = event_id or f"{family}-{self._numbers[family]:04d}"
        envelope = {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": event_type,
            "time": self._tick().isoformat().replace("+00:00", "Z"),
            "tenantid": tenant,
            **({} if idempotency_key is None else {"idempotencykey": idempotency_key}),
            **attributes,
            "data": data,
        }
        label = event_type.removesuffix(".v1")
        value = orjson.dumps(envelope)
        record = Record(label, topic or _TOPICS[family], tenant.encode(), value, entry_of=entry_of)
        self._written[event_id] = record
        self._add(record)
        return event_id

    def publish_bytes(
        self, topic: str, tenant: str, value: bytes | None, *, code: str, headers: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        """Add a record that is no event; it must become a dead letter with this code."""
        self._add(Record("no event at all", topic, tenant.encode(), value, headers))
        self.dead_letter(code)

    def publish_again(self, event_id: str, *, new_id: str | None = None) -> None:
        """Add a copy of an event, under another id and without a key if there is a new one; it must change nothing."""
        record = self._written[event_id]
        if new_id is not None:
            assert record.value is not None
            value = orjson.dumps(orjson.loads(record.value) | {"id": new_id, "source": "shop-importer"})
            record = record._replace(value=value, key=None)
        self._add(record)
        self.expected.duplicates += 1

    def _add(self, record: Record) -> None:
        self.stages[-1].records.append(record)
        self.expected.published[record.label] += 1

    def _tick(self) -> datetime:
        self.now += timedelta(minutes=1, seconds=17)
        return self.now

    # --- what it must come to ---------------------------------------------------------------------------------------

    def posted(self, tenant: str, kind: str, currency: str, legs: Iterable[Leg], breaches: Iterable[str] = ()) -> None:
        """The event makes one entry of these legs."""
        moved: defaultdict[str, int] = defaultdict(int)
        for account, amount in legs:
            moved[account] += amount
        assert sum(moved.values()) == 0, f"the story's own {kind} doesn't balance"
        figures = self.expected
        for account, amount in moved.items():
            place = (tenant, account, currency)
            figures.balances[place] = figures.balances.get(place, 0) + amount
        figures.trial_balance[tenant, currency] = 0
        figures.entries[kind] += 1
        figures.outputs["entry.recorded"] += 1
        figures.outputs["balance.changed"] += len(moved)
        figures.breaches.update(breaches)

    def obeyed(self) -> None:
        """The command is applied."""
        self.expected.outputs["command.applied"] += 1

    def rejected(self, tenant: str, code: str) -> None:
        self.expected.rejected[tenant, code] += 1
        self.expected.outputs["event.rejected"] += 1

    def parked(self, tenant: str, waits_for: str, *, comes: bool) -> None:
        """The event waits; where what it waits for comes, its entry is reckoned as any other."""
        self.expected.outputs["event.parked"] += 1
        if not comes:
            self.expected.waiting[tenant, waits_for] += 1

    def held(self, tenant: str, account: str, currency: str, change: int) -> None:
        """So much more of the account is set aside, or less."""
        place = (tenant, account, currency)
        self.expected.held[place] = self.expected.held.get(place, 0) + change

    def expires(self) -> None:
        """The clock ends something within this stage."""
        self.stages[-1].expiries += 1

    def dead_letter(self, code: str) -> None:
        self.expected.dead_letters[code] += 1
        self.expected.outputs["dead letter"] += 1

    def natural(self, tenant: str, account: str, currency: str) -> int:
        """What a liability account has by now, positive if it is in credit."""
        return -self.expected.balances.get((tenant, account, currency), 0)
