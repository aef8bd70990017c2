"""Events that wait, and keys that are taken: what comes free, in which order, and what is said of a conflict."""

from __future__ import annotations

import pytest

from domain import decide
from domain.books import Books
from domain.decide import decide_batch, resume
from domain.events import Applied, Event, Parked, Rejected
from tests.fixtures.desk import NOON, again, envelope, event_of, payment, refund


def empty() -> Books:
    return Books(shard=0, epoch=1, next_seq=1, recorded_at=NOON)


@pytest.fixture
def books() -> Books:
    return empty()


def test_whose_turn_has_come_is_decided_again_and_frees_who_waits_for_it(books: Books) -> None:
    waiting = [event_of(refund(f"r{number}", 1, payment_id="p1")) for number in (1, 2)]
    failed = event_of(envelope("refund.failed.v1", refund_id="r1"))
    assert [type(each.outcome) for each in decide_batch([*waiting, failed], books).handled] == [Parked] * 3
    # As the clock process has it: the payment came in a transaction that had no room for them.
    books.waiting, queue = {key: queue for key, queue in books.waiting.items() if queue[0] is failed}, waiting
    assert isinstance(decide_batch([event_of(payment("p1"))], books).handled[0].outcome, Applied)
    decided = resume(queue, books)
    assert [each.event for each in decided.handled] == [waiting[0], failed, waiting[1]]
    assert [type(each.outcome) for each in decided.handled] == [Applied] * 3
    assert [each.resumes for each in decided.handled] == [
        waiting[0].parked_seq,
        failed.parked_seq,
        waiting[1].parked_seq,
    ]
    assert not books.arrived and not decided.left_waiting


def test_an_event_that_was_parked_in_vain_is_not_taken_for_one_that_is_parked(books: Books) -> None:
    event = event_of(refund("r1", 100, payment_id="p1"))
    decide_batch([event], empty())
    assert event.parked_seq is not None
    # That database transaction came to nothing; the same event is decided anew, and what it names is there now.
    applied = decide_batch([event_of(payment("p1")), event], books).handled[1]
    assert (type(applied.outcome), applied.resumes) == (Applied, None)


def test_a_fact_that_is_refused_after_it_was_parked_in_vain_keeps_no_key_and_gives_none_back(books: Books) -> None:
    event = event_of(refund("r1", 5_000, payment_id="p1", key="k"))
    decide_batch([event], empty())
    refused = decide_batch([event_of(payment("p1", 1_000)), event], books).handled[1]
    assert isinstance(refused.outcome, Rejected) and refused.outcome.code == "refund_exceeds_payment"
    assert not books.released


def test_the_first_that_waits_is_counted(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "WAITING_MAX", 1)
    ended = [decide_batch([_waiting(number)], books).handled[0].outcome for number in (1, 2)]
    assert isinstance(ended[0], Parked)
    assert isinstance(ended[1], Rejected) and ended[1].code == "too_many_parked"


def _waiting(number: int) -> Event:
    return event_of(refund(f"r{number}", 1, payment_id="p1"))


def test_a_conflict_says_which_key_was_here_before(books: Books) -> None:
    first = payment("p1", 5, key="k")
    facts = [first, again(payment("p1", 6)), payment("p2", 5, key="k"), first | {"data": payment("p1", 7)["data"]}]
    told = [each.outcome for each in decide_batch([event_of(document) for document in facts], books).handled[1:]]
    assert [outcome.conflicts_with for outcome in told if isinstance(outcome, Rejected)] == [1] * 3
    assert [(str(outcome.code), outcome.message) for outcome in told if isinstance(outcome, Rejected)] == [
        ("idempotency_conflict", "this business fact was here before, with other data; the first stands"),
        ("idempotency_conflict", "the key k was here before, with other data; the first stands"),
        ("idempotency_conflict", f"the event {first['id']} of psp was here before, with another body"),
    ]
