"""The model, replayed in the order in which the ledger decided: whatever a subscriber was told must be its word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from infra.outbox import DEAD_LETTER, TYPES, Output
from tests.campaign.copies import Copies
from tests.model import Book, Model, instant

Event = dict[str, Any]
Row = Mapping[str, Any]

_EXPIRED = "hold.expired.v1"
_RESOLVED = ("authorization.requested.v1", "authorization.advised.v1")


class Judge:
    """One shard's: books of the tenants that are not at their end yet."""

    def __init__(self, copies: Copies, model: Model | None = None) -> None:
        self.model = model or copies.model
        self.copies = copies
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self._told: defaultdict[str, int] = defaultdict(int)
        self._moved: defaultdict[str, int] = defaultdict(int)
        self._owners: defaultdict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def hear(self, row: Row, outputs: Sequence[Output], event: Event | None) -> None:
        """One row of the journal with its outputs; `event` is what was published, None where it is no record's end."""
        tenant, seq = row["tenant_id"], row["seq"]
        book = self.model.books[tenant]
        if row["resumes"] is None:
            self._left_out(tenant, book, f"before seq {seq}")
            self._forget(tenant, book)
            if event is not None:
                self._handle(event, row, book)
            elif row["type"] == _EXPIRED:
                self._expire(row, book)
            else:
                self.fault(f"{tenant}: seq {seq} is a {row['type']} that nobody published")
        self._compare(tenant, book, outputs, seq)

    def _handle(self, event: Event, row: Row, book: Book) -> None:
        tenant = row["tenant_id"]
        self.faults += self.copies.met(row)
        if event["type"] in _RESOLVED:
            event = event | {"xlines": self._resolved(row, event, book)}
        if self.model.handle(event, row["recorded_at"]):
            self.fault(f"{tenant}: {event['id']} at seq {row['seq']} is a duplicate, and was judged")
        if event["type"] == "card.assign.v1":
            self._owners[tenant, event["data"]["card_id"]].add(_owner(event["data"]))
        self.copies.changed(tenant, [event, *book.given_back])
        self.copies.open_after(row)

    def _expire(self, row: Row, book: Book) -> None:
        event = {"id": row["event_id"], "data": orjson.loads(row["data"])}
        self.counts["expired"] += 1
        if not book.end_overdue(event, row["recorded_at"]):
            self.fault(f"{row['tenant_id']}: {row['event_id']} at seq {row['seq']}, and its time had not come")

    def _resolved(self, row: Row, event: Event, book: Book) -> dict[str, str]:
        """What the resolvers answered, which they may have: a line "" is one that they didn't find."""
        answer = orjson.loads(row["data"]).get("resolution", {})
        lines: dict[str, str] = answer.get("lines") or {}
        owners = self._owners[row["tenant_id"], event["data"]["card_id"]]
        for code, line_id in lines.items():
            line = book.lines.get(line_id)
            if line is None or line["owner"][2] != code or line["owner"][:2] not in owners:
                self.fault(f"{row['tenant_id']}: {event['id']} was resolved to the line {line_id} of somebody else")
        return {code: lines.get(code, "") for code in answer.get("categories") or ()}

    def _compare(self, tenant: str, book: Book, outputs: Sequence[Output], seq: int) -> None:
        balances: list[Event] = []
        for output in outputs:
            if output.type == DEAD_LETTER:
                continue
            kind, data = TYPES[output.type], orjson.loads(output.value or b"")["data"]
            if kind == "balance.changed.v1":
                balances.append(data)
                continue
            self.counts[kind] += 1
            self._expect(tenant, book, _said(kind, data), seq)
        self._balances(tenant, book, balances, seq)

    def _left_out(self, tenant: str, book: Book, when: str) -> None:
        if self._told[tenant] < len(book.told):
            self.fault(f"{tenant}: {when} the ledger left out {book.told[self._told[tenant] :][:3]}")
        if self._moved[tenant] < len(book.moved):
            self.fault(f"{tenant}: {when} the ledger left out the balances {book.moved[self._moved[tenant] :][:3]}")

    def _forget(self, tenant: str, book: Book) -> None:
        """Let go of what was compared."""
        for kept in (book.told, book.moved, book.given_back):
            kept.clear()
        self._told[tenant] = self._moved[tenant] = 0

    def _expect(self, tenant: str, book: Book, said: tuple[Any, ...], seq: int) -> None:
        place = self._told[tenant]
        if place >= len(book.told):
            self.fault(f"{tenant}: at seq {seq} the ledger said {str(said[:3])[:200]}, the model nothing")
            return
        expected = book.told[place]
        self._told[tenant] += 1
        if said[0] != "entry" or expected[0] != "entry":
            if said != expected:
                self.fault(f"{tenant}: at seq {seq} the ledger said {str(said)[:200]}, the model {expected}")
            return
        number = expected[1]
        wanted, found = _comparable(book.entries[number]), _readable(said[1])
        if wanted != found:
            differing = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
            self.fault(f"{tenant}: the entry at seq {seq} differs from the model's (found, wanted): {differing}")
        # Only what can be reversed is asked for again.
        if book.entries[number]["kind"] != "posted":
            book.entries[number] = {}

    def _balances(self, tenant: str, book: Book, balances: Sequence[Event], seq: int) -> None:
        """One change of each balance that the event moves, each as the model has it after the event."""
        begin = self._moved[tenant]
        self._moved[tenant] += len(balances)
        names = ("account", "currency", "posted", "held", "version")
        found = sorted(tuple(each[name] for name in names) for each in balances)
        wanted = sorted(book.moved[begin : begin + len(balances)])
        if found != wanted:
            self.fault(f"{tenant}: seq {seq}: the balances said are {found[:5]}, the model's are {wanted[:5]}")

    def end(self, tenant: str) -> Book:
        """A tenant's end: its book, for the tables to be compared with."""
        book = self.model.books.pop(tenant)
        self._left_out(tenant, book, "at the end")
        for kept in (self._told, self._moved):
            kept.pop(tenant, None)
        return book


def _said(kind: str, data: Event) -> tuple[Any, ...]:
    match kind:
        case "entry.recorded.v1":
            return ("entry", data)
        case "event.rejected.v1":
            return ("rejected", data["event"]["id"], data["code"])
        case "event.parked.v1":
            return ("parked", data["event"]["id"], data["code"])
        case "command.applied.v1":
            return ("applied", data["event"]["id"])
        case "authorization.decided.v1":
            names = ("decision", "decided_by", "reasons", "approved_amount")
            return ("decided", data["cause"]["id"], *(data[name] for name in names))
        case "authorization.changed.v1":
            names = ("status", "confirmed", "authorized", "captured", "refunded")
            return ("changed", data["cause"]["id"], *(data[name] for name in names), data.get("superseded", False))
    return (kind,)


def _owner(data: Event) -> tuple[str, str]:
    return data["owner_type"], data["owner_ref"].lower()


def _comparable(entry: Event) -> Event:
    return entry | {"postings": sorted(entry["postings"]), "reverses": None}


def _readable(data: Event) -> Event:
    names = ("account", "currency", "amount", "posted_after", "version")
    return {
        "kind": data["kind"],
        "references": data["references"],
        "description": data.get("description"),
        "metadata": data.get("metadata"),
        "effective_at": instant(data["effective_at"]),
        "occurred_at": instant(data["occurred_at"]),
        "recorded_at": instant(data["recorded_at"]),
        "breaches": data["breaches"],
        "cause": data["cause"]["id"],
        "reverses": data.get("reverses"),
        "postings": sorted(tuple(leg[name] for name in names) for leg in data["postings"]),
    }
