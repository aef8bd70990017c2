"""The life of an authorization: every cell of its table, the ones that change nothing too."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.authorization_states import STEPS, Act, Happening, State, drawing
from domain.events import Parked
from domain.reservations import Resolution
from tests.fixtures.cards import Till, card_payment, event_of, resolved, till

BOTH = {"food": "L1", "travel": "L2"}


def in_state(state: State) -> Till:
    """Books with the authorization x1 of 80 in this state; it pays from the wallet."""
    books = till()
    match state:
        case State.PENDING:
            books.later("confirmed")
        case State.DECLINED:
            books.request(amount=80, account="wallet", resolution=Resolution(failed=True))
        case State.APPROVED | State.CAPTURED | State.RELEASED:
            books.request(amount=80, account="wallet")
    if state is State.CAPTURED:
        books.later("captured", amount=80)
    if state is State.RELEASED:
        books.later("released", reason="cancelled")
    return books


def happens(books: Till, what: Happening) -> bool:
    """Let it happen; whether it was parked."""
    ids = {"provider": "visa", "external_id": "x1", "event_id": "one"}
    match what:
        case Happening.EXPIRED:
            if books.books.authorizations.touched and books.authorization().expires_at is not None:
                books.expire()
            return False
        case Happening.REQUESTED | Happening.ADVISED:
            made = event_of(f"authorization.{what}.v1", card_payment(account="wallet"))
            # Another request of the same would be a duplicate: the table must hold by itself.
            made.natural = None
            outcome = books.give(resolved(made, BOTH)).outcome
        case Happening.CONFIRMED:
            outcome = books.send("authorization.confirmed.v1", **ids).outcome
        case Happening.ADJUSTED:
            outcome = books.send("authorization.adjusted.v1", **ids, amount=90).outcome
        case Happening.CAPTURED | Happening.CAPTURED_FINALLY:
            final = what is Happening.CAPTURED_FINALLY
            outcome = books.send("authorization.captured.v1", **ids, amount=50, final=final).outcome
        case Happening.FORCE_POSTED:
            more = {"force_post": True, "currency": "EUR", "account": "wallet"}
            outcome = books.send("authorization.captured.v1", **ids, amount=50, **more).outcome
        case Happening.REFUNDED:
            outcome = books.send("authorization.refunded.v1", **ids, amount=10).outcome
        case Happening.RELEASED:
            outcome = books.send("authorization.released.v1", **ids, reason="cancelled").outcome
    return isinstance(outcome, Parked)


# What each act does to (expensed on each line, posted on the wallet, held on it), by the state it is done in.
MOVES: dict[Act, dict[State, tuple[int, int, int]]] = {
    Act.DECIDE: {State.UNKNOWN: (80, 0, 80), State.PENDING: (80, 0, 80)},
    Act.APPROVE: {State.UNKNOWN: (80, 0, 80), State.PENDING: (80, 0, 80), State.DECLINED: (80, 0, 80)},
    Act.ADJUST: {State.APPROVED: (10, 0, 10), State.RELEASED: (90, 0, 90)},
    Act.LATE_CAPTURE: {State.CAPTURED: (50, 50, 0), State.RELEASED: (50, 50, 0)},
    Act.POST: dict.fromkeys((State.UNKNOWN, State.PENDING, State.DECLINED), (0, 50, 0)),
    Act.REFUND: {
        State.DECLINED: (0, -10, 0),
        State.APPROVED: (-10, -10, 0),
        State.CAPTURED: (-10, -10, 0),
        State.RELEASED: (0, -10, 0),
    },
    Act.RELEASE: {State.APPROVED: (-80, 0, -80)},
}


def moves_of(act: Act, state: State, what: Happening) -> tuple[int, int, int]:
    if act is Act.CAPTURE:
        return (0, 50, -50) if what is Happening.CAPTURED else (-30, 50, -80)
    return MOVES[act][state] if act in MOVES else (0, 0, 0)


@pytest.mark.parametrize("what", Happening)
@pytest.mark.parametrize("state", State)
def test_each_event_in_each_state_does_what_the_table_says(state: State, what: Happening) -> None:
    act, to = STEPS[state, what]
    books = in_state(state)
    expensed, (posted, held) = books.expensed, books.balance()
    parked = happens(books, what)
    assert parked == (act is Act.PARK)
    expected = moves_of(act, state, what)
    assert tuple(after - before for after, before in zip(books.expensed, expensed, strict=True)) == (expected[0],) * 2
    assert (books.balance()[0] - posted, books.balance()[1] - held) == expected[1:]
    if to is not State.UNKNOWN:
        assert books.authorization().status == to


def test_the_table_has_every_cell() -> None:
    assert STEPS.keys() == {(state, what) for state in State for what in Happening}


def test_the_drawing_in_the_documentation_is_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "authorizations.md"
    assert drawing() in page.read_text(encoding="utf-8")
