"""The domain alone, its books in memory, against a ledger of plain dicts: quick enough to try every mutant of it on."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from domain.books import Books, Claim, Shelf
from domain.decide import decide_batch, expire
from domain.events import Applied, Entry, Event, Handled, Parked, Rejected
from domain.ids import entry_id
from domain.keys import Key
from domain.rejections import RejectionCode
from tests.fixtures.desk import NOON, event_of
from tests.model import Book, Model
from tests.property.test_ledger_against_model import Scribe, histories

EXAMPLES = 25
PATIENCE = timedelta(days=1)


class Memory:
    """Books that are never saved, and what they said, by tenant."""

    def __init__(self) -> None:
        self.books = Books(shard=2, epoch=3, next_seq=1, recorded_at=NOON)
        self.model = Model()
        self.kept: dict[Key, Claim] = {}
        self.saved: dict[tuple[str, Any], str] = {}
        """What would be in the database: every thing as it was when it was last noted as changed."""
        self.told: dict[str, list[tuple[Any, ...]]] = {}
        self.entries: dict[str, list[dict[str, Any]]] = {}
        self.state: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.moved: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        self.seq = 1

    def apply(self, documents: Sequence[dict[str, Any]], duplicates: int) -> None:
        decided = decide_batch([event_of(document) for document in documents], self.books)
        assert decided.duplicates == duplicates
        assert not decided.left_waiting
        self.hear(decided.handled)

    def end_patience(self) -> None:
        """Reject all that wait, in the order of their parking, as the clock process does."""
        waiting = [event for queue in self.books.waiting.values() for event in queue]
        waiting.sort(key=lambda event: event.parked_seq or 0)
        codes = {(event.tenant_id, *place): code for event in waiting for place, code in self._codes(event)}
        overdue = [(event, RejectionCode(codes[event.tenant_id, event.source, event.event_id])) for event in waiting]
        self.books.waiting.clear()
        self.books.waiting_count.clear()
        self.hear(expire(overdue, self.books).handled)
        for book in self.model.books.values():
            book.give_up(self.books.recorded_at, patience=timedelta(0))

    def _codes(self, event: Event) -> list[tuple[tuple[str, str], str]]:
        place = (event.source, event.event_id)
        return [(place, self.model.books[event.tenant_id].parked[place][1])]

    def hear(self, handled: Sequence[Handled]) -> None:
        for each in handled:
            assert each.seq == self.seq
            told = self.told.setdefault(each.event.tenant_id, [])
            match each.outcome:
                case Applied() as applied:
                    self.seq += applied.outputs
                    self._applied(each, applied)
                case Rejected(code=code, message=message):
                    assert message
                    told.append(("rejected", each.event.event_id, code))
                    self.seq += 1
                case Parked(code=code, waits_for_text=text):
                    assert text
                    assert each.event.parked_seq == each.seq
                    told.append(("parked", each.event.event_id, code))
                    self.seq += 1
            if each.resumes is not None:
                assert each.resumes < each.seq
        assert self.books.next_seq == self.seq

    def _applied(self, each: Handled, applied: Applied) -> None:
        tenant = each.event.tenant_id
        told, entries = self.told[tenant], self.entries.setdefault(tenant, [])
        assert applied.outputs == (applied.entry is not None) + len(applied.changes) + (applied.result is not None)
        if applied.entry is not None:
            assert applied.entry.seq == each.seq
            assert applied.entry.entry_id == entry_id(3, 2, each.seq)
            # As the loader finds it, should it be named.
            self.books.entries[applied.entry.entry_id] = (tenant, applied.entry)
            told.append(("entry", len(entries)))
            self.model.books[tenant].entry_numbers[str(applied.entry.entry_id)] = len(entries)
            entries.append(self._readable(each.event, applied.entry))
            self._changes(tenant, applied)
        if applied.result is not None:
            told.append(("applied", each.event.event_id))
            self._result(each.event, applied)

    def _changes(self, tenant: str, applied: Applied) -> None:
        assert applied.entry is not None
        legs = {(leg.account.name, leg.currency): leg for leg in applied.entry.postings}
        assert [(change.account.name, change.currency) for change in applied.changes] == list(legs)
        for change in applied.changes:
            leg = legs[change.account.name, change.currency]
            place = (tenant, change.account.name, change.currency)
            posted, version = self.state.get(place, (0, 0))
            now = (posted + change.posted_change, version + 1)
            assert (change.posted, change.version) == (leg.posted_after, leg.version) == now
            assert (change.pending, change.held, change.pending_change, change.held_change) == (0, 0, 0, 0)
            assert (change.balance.posted, change.balance.updated_at) == (
                change.account.balances[change.currency].posted,
                self.books.recorded_at,
            )
            self.state[place] = now

    def _result(self, event: Event, applied: Applied) -> None:
        result = applied.result or {}
        if applied.entry is not None:
            assert result == {"entry_id": str(applied.entry.entry_id)}
        elif event.type.startswith("account."):
            name = getattr(event.command, "name")  # noqa: B009
            account = self.books.account(event.tenant_id, name)
            assert account is not None and result == {"account_id": str(account.account_id)}

    def _readable(self, event: Event, entry: Entry) -> dict[str, Any]:
        numbers = self.model.books[event.tenant_id].entry_numbers
        return {
            "kind": entry.kind,
            "references": dict(entry.references),
            "description": entry.description,
            "metadata": None if entry.metadata is None else json.loads(entry.metadata),
            "effective_at": entry.effective_at,
            "occurred_at": entry.occurred_at,
            "recorded_at": self.books.recorded_at,
            "breaches": [str(code) for code in entry.breaches],
            "cause": event.event_id,
            "reverses": None if entry.reverses is None else numbers[str(entry.reverses)],
            "postings": sorted((leg.account.name, *leg[1:]) for leg in entry.postings),
        }

    # --- what must be -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        for tenant, book in self.model.books.items():
            assert self.told.get(tenant, []) == book.told
            expected = [entry | {"postings": sorted(entry["postings"])} for entry in book.entries]
            assert self.entries.get(tenant, []) == expected
            self._check_accounts(tenant, book)
        self._check_kept()

    def _check_accounts(self, tenant: str, book: Book) -> None:
        ours = {name: account for (owner, name), account in self.books.accounts.items() if owner == tenant}
        names = {account.account_id: name for name, account in ours.items()}
        found = {
            name: {
                "type": account.type,
                "currency": account.currency,
                "parent": None if account.parent_id is None else names[account.parent_id],
                "status": account.status,
                "floor": _limit(account.floors),
                "ceiling": _limit(account.ceilings),
            }
            for name, account in ours.items()
        }
        assert found == {
            name: {field: account[field] for field in ("type", "currency", "parent", "status")}
            | {limit: _limit(account[limit]) for limit in ("floor", "ceiling")}
            for name, account in book.accounts.items()
        }
        assert self.books.closed_through.get(tenant) == book.closed_through

    def _check_kept(self) -> None:
        """All that was made or changed is noted, so that it would be saved."""
        books = self.books
        assert len({account.account_id for account in books.opened}) == len(books.opened)
        assert books.accounts_by_id == {account.account_id: account for account in books.accounts.values()}
        noted = {account.account_id for account in books.opened} | books.changed_accounts.keys()
        told = {account.account_id: repr(replace(account, balances={})) for account in books.accounts_by_id.values()}
        self._save("accounts", told, noted)
        books.opened.clear()
        books.changed_accounts.clear()
        assert books.periods_closed == books.closed_through.keys()
        assert (
            books.new_tenants == books.known_tenants == {name for name, book in self.model.books.items() if book.exists}
        )
        for each in fields(books):
            if isinstance(shelf := getattr(books, each.name), Shelf):
                self._save(each.name, {key: repr(thing) for key, thing in shelf._things.items()}, shelf.touched)
                assert all(shelf.get(key) is thing for key, thing in shelf.touched.items())
                shelf.touched.clear()
        for key in books.released:
            del self.kept[key]
        self.kept |= books.new_claims
        assert self.kept == books.claims
        # As if they had been saved: what comes free from now on must be taken out of the database.
        books.released.clear()
        books.new_claims.clear()

    def _save(self, kind: str, things: Mapping[Any, str], noted: Collection[Any]) -> None:
        """Whatever isn't as it was must have been noted."""
        for key, told in things.items():
            if self.saved.get((kind, key)) != told:
                assert key in noted, (kind, told)
                self.saved[kind, key] = told


def _limit(limit: Any) -> dict[str, int]:
    if limit is None:
        return {}
    return dict(limit) if isinstance(limit, dict) else {"*": limit}


def agree(history: Sequence[Any], seed: int) -> None:
    """Have both go through a history, in batches of any size, and compare after each."""
    chance, memory = random.Random(seed), Memory()
    scribe, rest = Scribe(""), list(history)
    while rest:
        documents, duplicates = [], 0
        for drawn in rest[: (size := chance.choice([1, 3, 10, 40]))]:
            document = scribe.write(drawn, memory.model)
            documents.append(document)
            duplicates += memory.model.handle(document, memory.books.recorded_at)
        del rest[:size]
        memory.apply(documents, duplicates)
        memory.check()
        if chance.random() < 0.1:
            memory.end_patience()
            memory.check()
        memory.books.recorded_at += timedelta(minutes=chance.choice([0, 1, 60, 3_000]))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(history=histories, seed=st.integers(0, 2**32))
def test_every_history_is_decided_as_the_contract_says(history: Sequence[Any], seed: int) -> None:
    agree(history, seed)
