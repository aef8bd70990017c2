"""docs/authorizations.md: its drawings, tables and figures are those of the program."""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest

from domain.authorization_states import STEPS, Act, State
from domain.deciding import REASONS
from domain.reservations import HoldStatus
from infra.resolvers.pending import PendingTransaction
from infra.resolvers.sandbox import CHILDREN, MEMORY_BYTES
from infra.settings import Settings
from schemas.authorizations import AuthorizationRequestedV1
from schemas.outputs import DecisionReason
from tests.fixtures.cards import till

PAGE = (Path(__file__).parents[2] / "docs" / "authorizations.md").read_text(encoding="utf-8")
MOVES_NOTHING = (Act.NOTHING, Act.PARK, Act.JOIN)
Arrows = dict[tuple[str, str], set[str]]


def drawn() -> Arrows:
    """The arrows of the drawing, with what stands at each."""
    picture = PAGE.split("```mermaid\n")[1].split("```")[0]
    arrows = re.findall(r"^    (\S+) --> (\w+): (.+)$", picture, re.MULTILINE)
    assert len(arrows) == len(picture.splitlines()) - 1
    return {(begin, end): set(what.split(", ")) for begin, end, what in arrows}


def meant() -> Arrows:
    """The arrows that the table of states has, without what moves nothing."""
    arrows: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for (state, what), (act, to) in STEPS.items():
        if act in MOVES_NOTHING or (act is Act.CONFIRM and to is state):
            continue
        for end in (State.APPROVED, State.DECLINED) if act is Act.DECIDE else (to,):
            arrows["[*]" if state is State.UNKNOWN else str(state), str(end)].add(str(what))
    return dict(arrows)


def test_the_picture_has_the_arrows_of_the_table_and_no_other() -> None:
    assert drawn() == meant()


def test_every_act_of_the_table_is_explained() -> None:
    explained = PAGE.split("```mermaid")[1].split("### Confirmed")[0]
    told = {text.replace("\n  ", " ") for text in re.findall(r"\*\*([^*]+)\*\*", explained)}
    known = {str(act) for act in Act} - {Act.NOTHING, Act.CONFIRM, Act.LATE_CAPTURE}
    assert known <= told
    assert "**with a breach**" in explained


def test_the_checks_stand_in_their_order_with_all_their_codes() -> None:
    rows = re.findall(r"^\| [1-5] \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    assert [code for row in rows for code in re.findall(r"`(\w+)`", row)] == list(REASONS)
    assert len(rows) == 5


def test_every_reason_of_a_decision_is_in_the_page() -> None:
    assert {code for code in get_args(DecisionReason) if f"`{code}`" not in PAGE} == set()


def test_the_bounds_of_custom_resolvers_are_those_of_the_program() -> None:
    bounds = PAGE.split("Custom code can't break")[1].split("## Holds of your own")[0]
    assert f"({Settings().resolver_timeout:g} s)" in bounds
    assert f"{MEMORY_BYTES // 1024 // 1024} MiB" in bounds
    assert (CHILDREN, "there are three processes" in bounds) == (3, True)


def test_a_pending_transaction_has_all_fields_of_the_request_and_two_more() -> None:
    fields = set(PendingTransaction.__dataclass_fields__)
    assert fields == set(AuthorizationRequestedV1.model_fields) | {"tenant_id", "time"}


def test_a_hold_ends_as_the_page_says() -> None:
    ends = re.search(r"^\| \| pending \| (.*) \|$", PAGE, re.MULTILINE)
    assert ends is not None
    assert set(ends[1].split(", ")) == {str(status) for status in HoldStatus} - {HoldStatus.PENDING}


# --- the lives that are told ----------------------------------------------------------------------------------------

Happened = tuple[str, dict[str, Any]]
LIVES: dict[str, list[Happened]] = {
    "fuel pump": [("requested", {"amount": 1_00, "hold_amount": 100_00}), ("captured", {"amount": 63_20})],
    "hotel": [
        ("requested", {"amount": 200_00}),
        ("adjusted", {"amount": 260_00}),
        ("adjusted", {"amount": 310_00}),
        ("captured", {"amount": 180_00, "final": False}),
        ("captured", {"amount": 90_00, "final": False}),
        ("released", {"reason": "cancelled"}),
    ],
    "a tip": [("requested", {"amount": 40_00}), ("captured", {"amount": 46_00})],
    "refund after capture": [
        ("requested", {"amount": 40_00}),
        ("captured", {"amount": 40_00}),
        ("refunded", {"amount": 15_00}),
    ],
    "force post": [("captured", {"amount": 12_00, "force_post": True, "currency": "EUR", "account": "wallet"})],
}


def _row(life: str) -> list[list[int]]:
    """The figures of a row, cell by cell, in minor units."""
    row = re.search(rf"^\| {life} \| (.*) \|$", PAGE, re.MULTILINE)
    assert row is not None
    cells = [re.findall(r"\b\d+(?:\.\d\d)?\b", cell) for cell in row[1].split(" | ")]
    return [[int(Decimal(figure) * 100) for figure in cell] for cell in cells]


@pytest.mark.parametrize("life", LIVES)
def test_a_life_that_is_told_goes_as_it_is_told(life: str) -> None:
    books = till(limit=1_000_00, funds=1_000_00)
    expensed, held = [], []
    for what, data in LIVES[life]:
        if what == "requested":
            books.request(account="wallet", **data)
        else:
            books.later(what, **data)
        expensed.append(books.expensed)
        held.append(books.balance()[1])
    told, lines, holds = _row(life)
    assert told == [data[name] for _, data in LIVES[life] for name in ("amount", "hold_amount") if name in data]
    assert expensed == [(line, line) for line in lines]
    assert held == holds
