"""Holds and card payments decided in memory, against the ledger of plain dicts: quick enough to try mutants on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from domain.authorizations import AuthorizationAdvised, AuthorizationRequested
from domain.decide import decide_batch
from domain.events import Applied, Event, Handled
from domain.expiry import HoldExpired
from domain.reservations import AuthorizationStatus, HoldStatus, Resolution, authorization_key
from infra.expiry import expiry_event
from tests.fixtures.desk import Envelope, event_of
from tests.property.test_cards_against_model import Draw
from tests.property.test_domain_against_model import Memory

HISTORIES, EVENTS = 12, 150
TENANT = "acme"


def resolved_event_of(document: Envelope) -> Event:
    """The domain's event, with what the resolvers answered, which came with the envelope."""
    event = event_of({name: value for name, value in document.items() if name != "xlines"})
    if isinstance(event.command, AuthorizationRequested | AuthorizationAdvised):
        lines = document["xlines"]
        event.command.resolution = Resolution(frozenset(lines), lines)
    return event


class CardMemory(Memory):
    """Books of card payments that are never saved, and what they said."""

    def deliver(self, documents: Sequence[Envelope]) -> None:
        book = self.model.books[TENANT]
        duplicates = book.duplicates
        for document in documents:
            self.model.handle(document, self.books.recorded_at)
        decided = decide_batch([resolved_event_of(document) for document in documents], self.books)
        assert decided.duplicates == book.duplicates - duplicates
        self.hear(decided.handled)

    def end_what_is_over(self) -> None:
        """As the clock process does, in the same order as it."""
        now, books = self.books.recorded_at, self.books
        due = [
            HoldExpired(hold.expires_at, hold.hold_id)
            for hold in books.holds._things.values()
            if hold.status is HoldStatus.PENDING and hold.expires_at <= now
        ]
        for paid in books.authorizations._things.values():
            if paid.status is AuthorizationStatus.APPROVED and paid.expires_at is not None and paid.expires_at <= now:
                due.append(HoldExpired(paid.expires_at, None, paid.provider, paid.external_id))
        events = [expiry_event(TENANT, command) for command in due]
        told = list(self.told.get(TENANT, []))
        decided = decide_batch(events, books)
        self.hear(decided.handled)
        assert len(decided.handled) == len(due) == self.model.books[TENANT].expire(now)
        # What the clock does is told to subscribers as everything else is; the model says only what comes of it.
        self.told[TENANT] = told
        again = decide_batch([expiry_event(TENANT, command) for command in due], books)
        assert (again.handled, again.duplicates) == ([], 0)

    def _applied(self, each: Any, applied: Applied) -> None:
        told, entries = self.told[TENANT], self.entries.setdefault(TENANT, [])
        event_id = each.event.event_id
        parts = (applied.entry, applied.decision, applied.changed, applied.result)
        assert applied.outputs == sum(part is not None for part in parts) + len(applied.changes)
        if applied.entry is not None:
            assert applied.entry.seq == each.seq
            self.books.entries[applied.entry.entry_id] = (TENANT, applied.entry)
            told.append(("entry", len(entries)))
            entries.append(self._readable(each.event, applied.entry))
        self._moves(applied)
        decision, change = applied.decision, applied.changed
        if decision is not None:
            assert decision.reason == next(iter(decision.reasons), None) or decision.reason == "partial"
            said = (decision.decision, decision.decided_by, list(decision.reasons), decision.approved_amount)
            told.append(("decided", event_id, *said))
        if change is not None:
            told.append(("changed", event_id, *change[2:]))
        if applied.result is not None:
            told.append(("applied", event_id))
        self._names(each, applied)

    def _moves(self, applied: Applied) -> None:
        """Each balance moves by what is said, once per event, and the entry says the same."""
        for change in applied.changes:
            place = (TENANT, change.account.name, change.currency)
            posted, held, version = self.moved.get(place, (0, 0, 0))
            self.moved[place] = (change.posted, change.held, change.version)
            assert self.moved[place] == (posted + change.posted_change, held + change.held_change, version + 1)
            assert change.posted_change or change.held_change or applied.entry is not None
            assert (change.pending, change.pending_change) == (0, 0)
            assert change.balance.updated_at == self.books.recorded_at
        if applied.entry is not None:
            for leg in applied.entry.postings:
                posted, _, version = self.moved[TENANT, leg.account.name, leg.currency]
                assert (leg.posted_after, leg.version) == (posted, version)

    def _names(self, each: Handled, applied: Applied) -> None:
        """The outputs say what they are about."""
        family = each.event.type.split(".")[0]
        result = applied.result or {}
        if family == "hold" and result:
            assert applied.hold_id == result["hold_id"]
            assert ("entry_id" in result) == (applied.entry is not None)
            assert applied.authorization is None
        told = applied.decision or applied.changed
        if told is not None:
            key = authorization_key(TENANT, told.provider, told.external_id)
            assert (key, each.seq) in self.books.authorization_events
        if family == "authorization" and applied.changes:
            assert told is not None
            assert applied.authorization == (told.provider, told.external_id)

    def agree(self) -> None:
        book = self.model.books[TENANT]
        assert self.told.get(TENANT, []) == book.told
        assert [entry | {"reverses": None} for entry in self.entries.get(TENANT, [])] == [
            entry | {"postings": sorted(entry["postings"]), "reverses": None} for entry in book.entries
        ]
        found = {
            (account.name, currency): (balance.posted, balance.held, balance.version)
            for account in self.books.accounts.values()
            for currency, balance in account.balances.items()
        }
        assert found == {
            place: (book.posted[place], book.held[place], version)
            for place, version in book.versions.items()
            if version
        }
        self._check_accounts(TENANT, book)
        self._agree_on_what_is_open(book)
        books = self.books
        self._save("lines", {key: repr(line) for key, line in books.lines.items()}, books.changed_lines)
        self._save("categories", {key: repr(each) for key, each in books.categories.items()}, books.new_categories)
        books.changed_lines.clear()
        books.new_categories.clear()
        assert books.categories.keys() and {each.code for each in books.categories.values()} == book.categories
        self._check_kept()

    def _agree_on_what_is_open(self, book: Any) -> None:
        names = {account.account_id: account.name for account in self.books.accounts.values()}
        lines = {
            line.line_of_credit_id: (line.credits_limit, line.expensed_credits, line.terminated, line.currency)
            for line in self.books.lines.values()
        }
        assert lines == {
            name: (line["limit"], line["expensed"], line["terminated"], line["currency"])
            for name, line in book.lines.items()
        }
        holds = {
            hold.hold_id: (hold.status, hold.held, hold.captured, hold.expires_at, names[hold.account_id])
            for hold in self.books.holds._things.values()
        }
        assert holds == {
            thing[2]: (hold["status"], hold["held"], hold["captured"], hold["ends"], hold["account"])
            for thing, hold in book.things.items()
            if thing[0] == "hold"
        }
        for hold in self.books.holds._things.values():
            assert hold.amount >= hold.captured + hold.held
        paid = {
            (each.provider, each.external_id): (
                *(each.status, each.confirmed, each.currency, names.get(each.account_id) if each.account_id else None),
                *(each.authorized, each.captured, each.refunded, each.given_back, each.expensed, each.held),
                *(sorted(each.lines), each.adjusted_at),
                each.expires_at if each.status == "approved" else None,
            )
            for each in self.books.authorizations._things.values()
        }
        assert paid == {
            place: (
                *(each[name] for name in ("status", "confirmed", "currency", "account")),
                *(each[name] for name in ("authorized", "captured", "refunded", "back", "expensed", "held")),
                *(sorted(each["lines"]), each["adjusted"]),
                each["ends"] if each["status"] == "approved" else None,
            )
            for place, each in book.payments_by_card.items()
        }


def agree_on_cards(seed: int) -> None:
    """Have both go through a history that a seed gives, in batches of any size, and compare after each."""
    chance, memory = random.Random(seed), CardMemory()
    draw = Draw(chance, TENANT)
    rest = [*draw.begin(), *(draw.event() for _ in range(EVENTS))]
    while rest:
        batch, rest = rest[: (size := chance.choice([1, 5, 40]))], rest[size:]
        memory.deliver(batch)
        memory.agree()
        if chance.random() < 0.3:
            memory.end_what_is_over()
            memory.agree()
        memory.books.recorded_at += timedelta(minutes=chance.choice([0, 1, 30, 600]))


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_every_history_of_cards_is_decided_as_the_contract_says(seed: int) -> None:
    agree_on_cards(seed)
