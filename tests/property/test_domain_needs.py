"""Each event is decided the same on the part of the books that it says it needs, as the loaders understand it."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from domain.accounts import customer_balance
from domain.books import Books, Shelf
from domain.decide import decide_batch
from domain.events import Event
from domain.keys import Key
from domain.needs import Needs
from domain.reservations import line_key
from infra.postgres.load import name_needs
from tests.fixtures.desk import NOON, Envelope
from tests.model import Model
from tests.property.test_cards_against_model import Draw
from tests.property.test_domain_cards_against_model import resolved_event_of
from tests.property.test_ledger_against_model import Scribe, histories

EXAMPLES, HISTORIES, EVENTS = 8, 6, 120
SHELVES = ("refunds", "payments", "transfers", "payouts", "disputes", "holds", "authorizations", "cards")


def _only(whole: Shelf[Any], keys: Iterable[Key]) -> Shelf[Any]:
    part: Shelf[Any] = Shelf()
    for key in keys:
        if (thing := whole.get(key)) is not None:
            part.load(key, thing)
    return part


def part_of(books: Books, event: Event) -> Books:
    """The part of the books that would be loaded for one event alone."""
    needs = Needs()
    rest = deque([event])
    while rest:
        each = rest.popleft()
        name_needs(each, needs)
        rest += books.waiting.get(each.arrives, ()) if each.arrives is not None else ()
    part = Books(books.shard, books.epoch, books.next_seq, books.recorded_at)
    part.known_tenants, part.claims = set(books.known_tenants), dict(books.claims)
    part.closed_through = dict(books.closed_through)
    part.waiting = {key: queue for key, queue in books.waiting.items() if key in needs.arrivals}
    part.waiting_count = dict(books.waiting_count)
    part.entries = {name: books.entries[name] for name in needs.entries if name in books.entries}  # type: ignore[index,misc]
    needs.payments |= {refund.payment_key for refund in _things(books.refunds, needs.refunds) if refund.payment_key}
    for name in SHELVES:
        setattr(part, name, _only(getattr(books, name), getattr(needs, name)))
    _name_what_they_stand_on(part, needs)
    part.lines = {key: books.lines[key] for key in needs.lines if key in books.lines}
    part.line_owners = {key: books.line_owners[key] for key in needs.line_owners if key in books.line_owners}
    part.categories = {key: books.categories[key] for key in needs.categories if key in books.categories}
    _load_accounts(part, books, needs)
    return copy.deepcopy(part)


def _things(shelf: Shelf[Any], keys: Iterable[Key]) -> list[Any]:
    return [thing for key in keys if (thing := shelf.get(key)) is not None]


def _name_what_they_stand_on(part: Books, needs: Needs) -> None:
    for name in SHELVES[:-1]:
        for thing in getattr(part, name)._things.values():
            for each in thing if isinstance(thing, list) else [thing]:
                ids = ("account_id", "customer_account_id", "merchant_account_id", "cash_account_id")
                needs.account_ids |= {named for place in ids if (named := getattr(each, place, None)) is not None}
    for dispute in part.disputes._things.values():
        needs.accounts.add((dispute.tenant_id, customer_balance(dispute.customer_id)))
    for paid in part.authorizations._things.values():
        needs.lines |= {line_key(paid.tenant_id, line_id) for line_id in paid.lines}
    for _, entry in part.entries.values():
        needs.account_ids |= {leg.account.account_id for leg in entry.postings}


def _load_accounts(part: Books, books: Books, needs: Needs) -> None:
    found = [books.accounts[place] for place in needs.accounts if place in books.accounts]
    found += [books.accounts_by_id[account_id] for account_id in needs.account_ids]
    for account in found:
        part.keep_account(account)
    for place in needs.ancestors_of & books.accounts.keys():
        for above in books.ancestors(books.accounts[place]):
            part.keep_account(above)


def assert_parts_suffice(documents: Iterable[Envelope], model: Model) -> None:
    """Decide each event on the whole books and on its part of them, and tell the model the ids of entries."""
    books = Books(shard=2, epoch=3, next_seq=1, recorded_at=NOON)
    for document in documents:
        event, same = resolved_event_of(document), resolved_event_of(document)
        part = part_of(books, same)
        ours, theirs = decide_batch([event], books), decide_batch([same], part)
        assert [(each.seq, each.resumes, each.outcome) for each in theirs.handled] == [
            (each.seq, each.resumes, each.outcome) for each in ours.handled
        ]
        for each in ours.handled:
            entry = getattr(each.outcome, "entry", None)
            if entry is not None:
                books.entries[entry.entry_id] = (each.event.tenant_id, entry)
                numbers = model.books[each.event.tenant_id].entry_numbers
                numbers[str(entry.entry_id)] = len(numbers)
        books.recorded_at += timedelta(seconds=1)


def assert_parts_of_a_history_suffice(history: Sequence[Any]) -> None:
    scribe, model = Scribe(""), Model()
    assert_parts_suffice((scribe.write(drawn, model) for drawn in history), model)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(history=histories)
def test_what_a_money_event_or_command_needs_is_all_that_it_looks_at(history: Sequence[Any]) -> None:
    assert_parts_of_a_history_suffice(history)


def assert_parts_suffice_for_cards(seed: int) -> None:
    draw = Draw(random.Random(seed), "acme")
    assert_parts_suffice([*draw.begin(), *(draw.event() for _ in range(EVENTS))], Model())


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_what_a_hold_or_a_card_payment_needs_is_all_that_it_looks_at(seed: int) -> None:
    assert_parts_suffice_for_cards(seed)
