"""The model, replayed in the order in which the ledger decided: whatever a subscriber was told must be its word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from infra.outbox import DEAD_LETTER, TYPES, Output
from tests.model import Book, Model, fingerprint, instant, natural_key

Event = dict[str, Any]


class Judge:
    """One shard's: books of the tenants that are not at their end yet."""

    def __init__(self, model: Model | None = None) -> None:
        self.model = model or Model()
        self.faults: list[str] = []
        self.entries = 0
        self._told: defaultdict[str, int] = defaultdict(int)
        self._returned: defaultdict[str, set[tuple[Any, ...]]] = defaultdict(set)

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def hear(self, row: asyncpg.Record, outputs: Sequence[Output], event: Event | None) -> None:
        """One row of the journal with its outputs; `event` is what was published, None where it goes on later."""
        tenant = row["tenant_id"]
        book = self.model.books[tenant]
        if event is not None:
            if self._told[tenant] < len(book.told):
                self.fault(f"{tenant}: before seq {row['seq']} the ledger left out {book.told[self._told[tenant]]}")
            self._forget(tenant, book)
            if self.model.handle(event, row["recorded_at"]):
                self.fault(f"{tenant}: {event['id']} at seq {row['seq']} is a duplicate, and was judged")
        entry: Event | None = None
        balances: list[Event] = []
        for output in outputs:
            if output.type == DEAD_LETTER:
                continue
            document = orjson.loads(output.value or b"")
            kind, data = TYPES[output.type], document["data"]
            if kind == "balance.changed.v1":
                balances.append(data)
                continue
            self._expect(tenant, book, self._said(kind, data, book, tenant), row["seq"])
            entry = data if kind == "entry.recorded.v1" else entry
        self._balances(entry, balances, row["seq"])

    def _forget(self, tenant: str, book: Book) -> None:
        """Let go of what was compared."""
        book.told.clear()
        self._told[tenant] = 0

    def _said(self, kind: str, data: Event, book: Book, tenant: str) -> tuple[Any, ...]:
        match kind:
            case "entry.recorded.v1":
                return ("entry", data)
            case "event.rejected.v1":
                return ("rejected", data["event"]["id"], data["code"])
            case "event.parked.v1":
                return ("parked", data["event"]["id"], data["code"])
            case "command.applied.v1":
                return ("applied", data["event"]["id"])
        return (kind,)

    def _expect(self, tenant: str, book: Book, said: tuple[Any, ...], seq: int) -> None:
        place = self._told[tenant]
        if place >= len(book.told):
            self.fault(f"{tenant}: at seq {seq} the ledger said {said[:3]}, the model nothing")
            return
        expected = book.told[place]
        self._told[tenant] += 1
        if said[0] != "entry" or expected[0] != "entry":
            if said != expected:
                self.fault(f"{tenant}: at seq {seq} the ledger said {str(said)[:200]}, the model {expected}")
            return
        number = expected[1]
        self.entries += 1
        wanted, found = _comparable(book.entries[number]), _readable(said[1])
        if wanted != found:
            differing = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
            self.fault(f"{tenant}: the entry at seq {seq} differs from the model's (found, wanted): {differing}")
        # Only what can be reversed is asked for again.
        if book.entries[number]["kind"] != "posted":
            book.entries[number] = {}

    def _balances(self, entry: Event | None, balances: Sequence[Event], seq: int) -> None:
        """One change of each balance that the entry moves, each as the entry says that it is afterwards."""
        legs = [] if entry is None else entry["postings"]
        wanted = {(leg["account_id"], leg["currency"]): (leg["posted_after"], leg["version"]) for leg in legs}
        found = {(each["account_id"], each["currency"]): (each["posted"], each["version"]) for each in balances}
        if wanted != found or len(found) != len(balances):
            self.fault(f"seq {seq}: the balances said are {found}, the entry's are {wanted}")

    async def close(self, connection: Any, tenant: str, leftover: Sequence[Event]) -> None:
        """A tenant's end: the tables agree with the model, and what is in no row was a duplicate."""
        book = self.model.books.pop(tenant)
        if self._told[tenant] < len(book.told):
            self.fault(f"{tenant}: the ledger left out {book.told[self._told[tenant] :][:3]} at the end")
        rows = await connection.fetch(
            "SELECT name, b.currency, posted, version FROM balances b JOIN accounts USING (shard, account_id)"
            " WHERE tenant_id = $1",
            tenant,
        )
        found = {(row[0], row[1]): (row[2], row[3]) for row in rows}
        wanted = {place: (book.posted[place], version) for place, version in book.versions.items() if version}
        if found != wanted:
            differing = {place: (found.get(place), wanted.get(place)) for place in found | wanted}
            few = [item for item in differing.items() if item[1][0] != item[1][1]][:3]
            self.fault(f"{tenant}: balances differ from the model's (found, wanted): {few}")
        waiting = await connection.fetch(
            "SELECT event_id FROM parked JOIN events USING (shard, seq) WHERE tenant_id = $1", tenant
        )
        if sorted(row[0] for row in waiting) != sorted(e["id"] for queue in book.waiting.values() for e in queue):
            self.fault(f"{tenant}: what is parked isn't what the model has waiting")
        for event in leftover:
            before, natural = book.duplicates, natural_key(event)
            # Its copy came first, and only then another body took its delivery: it was a duplicate at its time.
            told = natural is not None and book.keys.get(natural) == fingerprint(event)
            book.handle(event, book.now)
            if book.duplicates == before and not told and natural not in self._returned[tenant]:
                self.fault(f"{tenant}: {event['type']} {event['id']} has no end, and is no duplicate")
        for kept in (self._told, self._returned):
            kept.pop(tenant, None)

    def gave_back(self, tenant: str, event: Event) -> None:
        """A parked fact that was refused in the end: while it waited, its copies were duplicates."""
        self._returned[tenant].add(natural_key(event) or ())


def _comparable(entry: Event) -> Event:
    return entry | {"postings": sorted(entry["postings"]), "reverses": None}


def _readable(data: Event) -> Event:
    names = ("account", "currency", "amount", "posted_after", "version")
    return {
        "kind": data["kind"],
        "references": data["references"],
        "description": data.get("description"),
        "metadata": data.get("metadata"),
        "effective_at": _utc(data["effective_at"]),
        "occurred_at": _utc(data["occurred_at"]),
        "recorded_at": _utc(data["recorded_at"]),
        "breaches": data["breaches"],
        "cause": data["cause"]["id"],
        "reverses": data.get("reverses"),
        "postings": sorted(tuple(leg[name] for name in names) for leg in data["postings"]),
    }


def _utc(text: str) -> datetime:
    return instant(text)
