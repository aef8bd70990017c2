"""Reads of holds and card payments: what a person is told of a life, of what was asked for and isn't there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.cli import cli
from infra.devstack import RunningStack
from infra.postgres import queries
from infra.postgres.queries import NotFound
from infra.postgres.queries_explained_cards import explain_authorization, explain_hold
from infra.postgres.reading import reading
from infra.settings import Settings
from tests.fixtures.cards import OWNER, card_payment
from tests.fixtures.database import database
from tests.fixtures.desk import NOON, Desk, Envelope, desk_on, envelope
from tests.integration.test_cards import events_of, later, opened

TENANT = "acme"
OTHER = "other"
HOUR = timedelta(hours=1)
# Recorded and, but for the stale adjustment, effective: an hour before the desk's noon.
ELEVEN = "2026-03-02T11:00:00.000000Z"
WEEK_LATER = "2026-03-09T11:00:00.000000Z"

Read = Callable[[AsyncConnection], Awaitable[Any]]


def asked(external_id: str, amount: int, **more: Any) -> Envelope:
    return envelope("authorization.requested.v1", **card_payment(external_id, amount, **more))


def story() -> list[Envelope]:
    """A hotel's payment with all that can happen to it, a decline, a partial approval, one undecided; holds."""
    stale = NOON - 2 * HOUR
    return [
        *opened(10_000, 1_000),
        later("confirmed", "hotel"),
        asked("hotel", 200, account="wallet"),
        later("adjusted", "hotel", amount=300),
        later("adjusted", "hotel", amount=250, time=stale),
        later("captured", "hotel", amount=150, final=False),
        later("refunded", "hotel", amount=40),
        asked("much", 5_000, account="nobody"),
        asked("part", 5_000, partial_approval=True),
        later("captured", "waits", amount=5),
        asked("waits", 5),
        later("confirmed", "undecided"),
        later("captured", "early", amount=5),
        envelope("hold.created.v1", id="made", hold_id="h1", account="wallet", amount=90, currency="EUR",
                 direction="out", payment_id="p1"),
        envelope("hold.adjusted.v1", id="more", hold_id="h1", adjustment_id="1", amount=95),
        envelope("hold.captured.v1", id="part", hold_id="h1", amount=10, final=False, capture_id="1"),
        envelope("hold.captured.v1", id="rest", hold_id="h1", amount=20),
        envelope("hold.created.v1", hold_id="h2", account="wallet", amount=7, currency="EUR"),
        envelope("hold.voided.v1", hold_id="h2"),
        envelope("hold.created.v1", hold_id="refused", account="wallet", amount=99_999, currency="EUR"),
        envelope("hold.captured.v1", hold_id="h-early", amount=5),
        envelope("line_of_credit.terminate.v1", line_of_credit_id="L2"),
        envelope("card.assign.v1", card_id="c2", owner_type="employee", owner_ref=OWNER.upper()),
        envelope("card.assign.v1", card_id="c3", owner_type="team", owner_ref=OWNER),
        envelope("card.unassign.v1", card_id="c3", owner_type="team", owner_ref=OWNER),
        envelope("expense_category.create.v1", code="fuel", name="Fuel", description="Petrol", reference="4711",
                 match=[{"mccs": ["5541-5542"], "countries": ["FRA", "BEL"]},
                        {"merchants": [{"merchant_id": "m1", "acquirer_id": "a1"}]}]),
        envelope("expense_category.create.v1", code="by-hand", name="By hand"),
        *theirs(),
    ]  # fmt: skip


def theirs() -> list[Envelope]:
    """What another tenant has on the same shard, in part under the same names."""
    line = {"line_of_credit_id": "L1", "owner_type": "employee", "owner_ref": OWNER, "expense_category": "food"}
    return [
        envelope("account.create.v1", tenant=OTHER, name="wallet", type="asset"),
        envelope("hold.created.v1", tenant=OTHER, hold_id="h2", account="wallet", amount=1, currency="EUR"),
        envelope("expense_category.create.v1", tenant=OTHER, code="food", name="Their food"),
        envelope("line_of_credit.create.v1", tenant=OTHER, **line, currency="USD"),
        envelope("card.assign.v1", tenant=OTHER, card_id="c1", owner_type="vehicle", owner_ref=OWNER),
    ]


@pytest.fixture(scope="module")
async def books(stack: RunningStack) -> AsyncIterator[Settings]:
    """The books after that story, for all tests here: they only read. One shard, which two tenants share."""
    async with database(stack, 1) as url:
        settings = replace(Settings(), database_url=url, shards=1)
        async with desk_on(settings) as desk:
            await desk.apply_events(events_of(desk, story()))
        yield settings


@pytest.fixture
def run(books: Settings) -> Callable[..., Result]:
    def invoke(*arguments: str, tenant: str = TENANT, **changed: str) -> Result:
        environment = {"LEDGER_DATABASE_URL": books.need_database_url(), "COLUMNS": "100"} | changed
        return CliRunner().invoke(cli, [*arguments, "--tenant", tenant], env=environment)

    return invoke


Run = Callable[..., Result]


def _document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def _lines(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- holds ----------------------------------------------------------------------------------------------------------


def test_a_hold_prints_the_keys_of_the_contract(run: Run) -> None:
    found = _document(run("hold", "h1", "--json"))
    entry_ids = found.pop("entry_ids")
    assert found == {
        "hold_id": "h1",
        "account": "wallet",
        "currency": "EUR",
        "direction": "out",
        "status": "captured",
        "amount": 95,
        "held": 0,
        "captured": 30,
        "expires_at": WEEK_LATER,
        "payment_id": "p1",
    }
    captures = _lines(run("entries", "--kind", "hold_captured", "--json"))
    assert entry_ids == [entry["entry_id"] for entry in captures]
    assert [entry["references"] for entry in captures] == [{"payment_id": "p1"}] * 2


def test_a_hold_without_a_payment_or_a_capture_has_none(run: Run) -> None:
    found = _document(run("hold", "h2", "--json"))
    assert (found["status"], found["entry_ids"], "payment_id" in found) == ("voided", [], False)
    assert found["direction"] == "in"


def test_people_see_what_a_hold_still_holds(run: Run) -> None:
    shown = run("hold", "h1").stdout
    assert "hold h1: captured" in shown
    assert "captured    0.30 EUR" in shown
    assert "wallet; what is captured goes out of it" in shown
    assert "expires" not in shown


# --- authorizations -------------------------------------------------------------------------------------------------


def test_an_authorization_prints_its_life_in_the_order_of_the_ledger(run: Run) -> None:
    found = _document(run("authorization", "visa", "hotel", "--json"))
    events = found.pop("events")
    assert found == {
        "provider": "visa",
        "external_id": "hotel",
        "status": "approved",
        "confirmed": True,
        "decision": "approved",
        "decided_by": "ledger",
        "reason": None,
        "reasons": [],
        "currency": "EUR",
        "amount": 200,
        "approved_amount": 200,
        "authorized": 300,
        "captured": 150,
        "refunded": 40,
        "held": 150,
        "expensed": 260,
        "expense_categories": ["food", "travel"],
        "lines_of_credit": ["L1", "L2"],
        "account": "wallet",
        "expires_at": WEEK_LATER,
    }
    assert [(event["type"], event.get("amount"), event.get("held_change")) for event in events] == [
        ("authorization.confirmed.v1", None, None),
        ("authorization.requested.v1", 200, 200),
        ("authorization.adjusted.v1", 300, 100),
        ("authorization.adjusted.v1", 250, None),
        ("authorization.captured.v1", 150, -150),
        ("authorization.refunded.v1", 40, None),
    ]
    assert [event["event_id"] is None for event in events] == [False, True, False, False, False, False]
    assert {event["time"] for event in events} == {ELEVEN, "2026-03-02T10:00:00.000000Z"}
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    captured, refunded = (event["entry_id"] for event in events[-2:])
    assert _document(run("entry", captured, "--json"))["kind"] == "authorization_captured"
    assert _document(run("entry", refunded, "--json"))["kind"] == "authorization_refunded"
    assert not any("entry_id" in event for event in events[:-2])


def test_a_decline_says_all_its_reasons(run: Run) -> None:
    found = _document(run("authorization", "visa", "much", "--json"))
    assert (found["decision"], found["status"], found["approved_amount"]) == ("declined", "declined", 0)
    assert found["reason"] == "insufficient_credits"
    assert found["reasons"] == ["insufficient_credits", "account_not_found"]
    assert (found["account"], found["expires_at"], found["expensed"]) == (None, None, 0)
    shown = run("authorization", "visa", "much").stdout
    assert "declined by ledger, insufficient_credits; asked for 50.00 EUR" in shown
    assert "insufficient_credits, account_not_found" in shown


def test_a_partial_approval_says_of_how_much_and_what_was_short(run: Run) -> None:
    found = _document(run("authorization", "visa", "part", "--json"))
    assert (found["reason"], found["reasons"]) == ("partial", ["insufficient_credits"])
    assert (found["amount"], found["approved_amount"], found["authorized"]) == (5_000, 740, 740)
    assert "approved by ledger, 7.40 EUR of 50.00 EUR" in run("authorization", "visa", "part").stdout


def test_one_that_was_only_confirmed_is_pending_without_a_decision(run: Run) -> None:
    found = _document(run("authorization", "visa", "undecided", "--json"))
    assert (found["status"], found["confirmed"], found["decision"], found["currency"]) == ("pending", True, None, None)
    assert "decision    none yet" in run("authorization", "visa", "undecided").stdout


def test_people_follow_a_life_line_by_line(run: Run) -> None:
    shown = run("authorization", "visa", "hotel", COLUMNS="140").stdout
    assert "visa hotel: approved, confirmed" in shown
    assert "L1, L2; 2.60 EUR expensed on each" in shown
    rows = [line.split() for line in shown.partition("What happened")[2].splitlines()[2:]]
    assert [row[:3] for row in rows[-2:]] == [["Entry", "at", "seq"]] * 2
    assert [row[2] for row in rows[:-2]] == ["confirmed", "requested", "adjusted", "adjusted", "captured", "refunded"]
    assert "-1.50 EUR" in shown
    assert "+2.00 EUR" in shown


# --- credit ---------------------------------------------------------------------------------------------------------


def test_the_lines_of_an_owner_print_the_keys_of_the_contract(run: Run) -> None:
    owned = ("--owner-type", "employee", "--owner-ref", OWNER.upper())
    first, second = _lines(run("lines", *owned, "--json"))
    assert first == {
        "line_of_credit_id": "L1",
        "owner_type": "employee",
        "owner_ref": OWNER,
        "expense_category": "food",
        "currency": "EUR",
        "credits_limit": 1_000,
        "expensed_credits": 1_000,
        "available_credits": 0,
        "terminated": False,
    }
    assert (second["line_of_credit_id"], second["terminated"]) == ("L2", True)
    assert _document(run("line", "L1", "--json")) == first
    assert "ended" in run("lines", *owned).stdout
    assert "10.00 EUR" in run("line", "L1").stdout


def test_an_owner_without_lines_has_an_empty_list(run: Run) -> None:
    result = run("lines", "--owner-type", "team", "--owner-ref", OWNER, "--json")
    assert (result.exit_code, result.stdout) == (0, "")
    shown = run("lines", "--owner-type", "team", "--owner-ref", OWNER)
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert f"team {OWNER} has no line of credit" in shown.stderr


def test_categories_print_their_rules_as_they_were_given(run: Run) -> None:
    found = {each["code"]: each for each in _lines(run("categories", "--json"))}
    assert list(found) == ["by-hand", "food", "fuel", "travel"]
    assert found["fuel"] == {
        "code": "fuel",
        "name": "Fuel",
        "description": "Petrol",
        "reference": "4711",
        "match": [
            {"mccs": ["5541-5542"], "countries": ["FRA", "BEL"]},
            {"merchants": [{"merchant_id": "m1", "acquirer_id": "a1"}]},
        ],
    }
    assert (found["by-hand"]["match"], found["by-hand"]["reference"]) == ([], None)
    shown = run("categories", COLUMNS="160").stdout
    assert "MCC 5541-5542 and country FRA, BEL or merchant m1 of a1" in shown
    assert "every payment" in shown
    assert "none by itself" in shown


def test_cards_are_listed_with_their_owners_and_without_the_unassigned(run: Run) -> None:
    assert _lines(run("cards", "--json")) == [
        {"card_id": card_id, "owner_type": "employee", "owner_ref": OWNER} for card_id in ("c1", "c2")
    ]
    assert OWNER in run("cards").stdout


# --- what isn't there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("hold", "h9"), "tenant 'acme' has no hold 'h9'; holds that it has: 'h1', 'h2'"),
        (("hold", "refused"), "hold.created.v1 was rejected insufficient_balance; see `ledgerstream rejections show "),
        (("hold", "h-early"), "no hold 'h-early' yet; events that wait for it: 1, see `ledgerstream parked list`"),
        (("authorization", "visa", "nope"), "no authorization 'nope' of 'visa'; authorizations that it has: 'visa' "),
        (("authorization", "amex", "hotel"), "no authorization 'hotel' of 'amex'; authorizations that it has: 'visa' "),
        (("authorization", "visa", "early"), "no authorization 'early' of 'visa' yet; events that wait for it: 1"),
        (("line", "L9"), "tenant 'acme' has no line of credit 'L9'; lines of credit that it has: 'L1', 'L2'"),
        (("explain", "nothing"), "tenant 'acme' has no account 'nothing', nor a hold of that name"),
        (("explain", "visa", "nope"), "no authorization 'nope' of 'visa'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_ends_1_and_says_why_or_what_is(run: Run, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("lines", "--owner-type", "employee", "--owner-ref", "42"), "not a valid UUID"),
        (("lines", "--owner-ref", OWNER), "Missing option '--owner-type'"),
        (("authorization", "visa"), "Missing argument 'EXTERNAL_ID'"),
        (("explain", "a", "b", "c"), "at most two names"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_ends_2(run: Run, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr


ONES: dict[str, Read] = {
    "hold": lambda connection: queries.hold(connection, OTHER, "h1"),
    "authorization": lambda connection: queries.authorization(connection, OTHER, "visa", "hotel"),
    "line": lambda connection: queries.line(connection, OTHER, "L2"),
    "explained hold": lambda connection: explain_hold(connection, OTHER, "h1"),
    "explained authorization": lambda connection: explain_authorization(connection, OTHER, "visa", "hotel"),
}


@pytest.mark.parametrize("name", ONES)
async def test_what_is_anothers_is_not_found_nor_named(books: Settings, name: str) -> None:
    async with reading(books) as connection:
        with pytest.raises(NotFound, match="tenant 'other' has no") as missing:
            await ONES[name](connection)
    told = str(missing.value)
    assert [name for name in ("'much'", "'part'", "'refused'", "'L2',") if name in told] == []
    assert told.count("'h1'") + told.count("'hotel'") <= 1


def test_of_two_tenants_each_has_its_own_by_the_same_name(run: Run) -> None:
    owned = ("--owner-type", "employee", "--owner-ref", OWNER)
    (line,) = _lines(run("lines", *owned, "--json", tenant=OTHER))
    assert (line["line_of_credit_id"], line["currency"], line["expensed_credits"]) == ("L1", "USD", 0)
    assert _document(run("line", "L1", "--json", tenant=OTHER)) == line
    assert [each["name"] for each in _lines(run("categories", "--json", tenant=OTHER))] == ["Their food"]
    assert [each["owner_type"] for each in _lines(run("cards", "--json", tenant=OTHER))] == ["vehicle"]
    assert _document(run("hold", "h2", "--json", tenant=OTHER))["amount"] == 1


@pytest.mark.parametrize(
    "arguments", [("categories",), ("cards",), ("lines", "--owner-type", "employee", "--owner-ref", OWNER)]
)
def test_a_list_of_nobodys_ends_1(run: Run, arguments: tuple[str, ...]) -> None:
    nobodys = run(*arguments, "--json", tenant="nobody")
    assert (nobodys.exit_code, nobodys.stdout) == (1, "")
    assert "no tenant 'nobody'" in nobodys.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("hold", "h1"),
        ("authorization", "visa", "hotel"),
        ("line", "L1"),
        ("lines", "--owner-type", "employee", "--owner-ref", OWNER),
        ("categories",),
        ("cards",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_people_see_fits_eighty_columns(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, COLUMNS="80")
    assert result.exit_code == 0
    assert result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


# --- why ------------------------------------------------------------------------------------------------------------


async def test_a_card_payment_is_told_event_by_event_with_how_it_stood_after_each(books: Settings) -> None:
    async with reading(books) as connection:
        found = await explain_authorization(connection, TENANT, "visa", "hotel")
        rest = await queries.authorization(connection, TENANT, "visa", "hotel")
    assert found["authorization"] == rest
    assert {event["outcome"] for event in found["events"]} == {"applied"}
    assert all(event["event"]["topic"] == "ledger.authorizations" for event in found["events"])
    said = [output["said"] for event in found["events"] for output in event["outputs"] if "said" in output]
    assert [each.get("decision", each.get("status")) for each in said] == ["pending", *["approved"] * 5]
    assert [each.get("superseded", False) for each in said] == [False, False, False, True, False, False]
    assert said[-1]["refunded"] == 40


async def test_an_event_that_waited_for_its_decision_is_told_after_it_and_for_what_it_waited(books: Settings) -> None:
    async with reading(books) as connection:
        found = await explain_authorization(connection, TENANT, "visa", "waits")
    asking, captured = (event["event"] for event in found["events"])
    assert (asking["type"], captured["type"]) == ("authorization.requested.v1", "authorization.captured.v1")
    assert captured["parked"]["waits_for"] == "authorization waits of visa"
    assert captured["parked"]["seq"] < asking["seq"] < captured["seq"]
    assert (found["authorization"]["decision"], found["authorization"]["captured"]) == ("declined", 5)


async def test_a_hold_is_told_by_what_made_adjusted_captured_and_ended_it(books: Settings) -> None:
    async with reading(books) as connection:
        captured = await explain_hold(connection, TENANT, "h1")
        voided = await explain_hold(connection, TENANT, "h2")
    assert [event["event"]["id"] for event in captured["events"]] == ["made", "more", "part", "rest"]
    assert [event.get("superseded") for event in captured["events"]] == [None, False, None, None]
    assert captured["adjusted_at"] == datetime(2026, 3, 2, 11, tzinfo=UTC)
    assert [event["event"]["type"] for event in voided["events"]] == ["hold.created.v1", "hold.voided.v1"]
    topics = {output["topic"] for event in captured["events"] for output in event["outputs"]}
    assert topics == {"balances", "entries", "outcomes"}


async def test_a_hold_is_told_by_its_own_adjustments_and_which_of_them_came_too_late(
    lone_desk: Desk, ledger_settings: Settings
) -> None:
    def adjusted(hold_id: str, number: int, amount: int, time: datetime = NOON, **more: Any) -> Envelope:
        data = {"hold_id": hold_id, "adjustment_id": str(number), "amount": amount}
        return envelope("hold.adjusted.v1", id=f"{hold_id} {number}", time=time, **data | more)

    # One name is written otherwise in JSON, and another adjustment's id has it, too.
    name, other = 'h"é', "h2"
    made = [envelope("hold.created.v1", id=each, hold_id=each, account="wallet", amount=9, currency="EUR")
            for each in (name, other)]  # fmt: skip
    await lone_desk.apply(
        *opened(),
        *made,
        adjusted(name, 1, 12),
        adjusted(other, 1, 8, adjustment_id='"hold_id":"h\\"é"'),
        adjusted(name, 2, 5, NOON - HOUR),
        adjusted(name, 3, 0),
        adjusted(name, 4, 15),
    )
    async with reading(ledger_settings) as connection:
        found = await explain_hold(connection, TENANT, name)
    told = [(event["event"]["id"], event["outcome"], event.get("superseded")) for event in found["events"]]
    assert told == [
        (name, "applied", None),
        (f"{name} 1", "applied", False),
        (f"{name} 2", "applied", True),
        (f"{name} 4", "applied", False),
    ]
    assert found["hold"]["amount"] == 15


async def test_an_expired_hold_is_told_by_its_expiry(lone_desk: Desk, ledger_settings: Settings) -> None:
    await lone_desk.apply(
        *opened(), envelope("hold.created.v1", hold_id="h1", account="wallet", amount=9, currency="EUR")
    )
    lone_desk.now = NOON + timedelta(days=8)
    assert await lone_desk.ledger.expire_holds(await lone_desk.shard()) == 1
    async with reading(ledger_settings) as connection:
        found = await explain_hold(connection, TENANT, "h1")
    assert [event["event"]["type"] for event in found["events"]] == ["hold.created.v1", "hold.expired.v1"]
    assert found["events"][1]["event"]["source"] == "ledgerstream"


async def test_the_runbooks_queries_say_what_is_overdue_and_what_was_declined(lone_desk: Desk) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
    declined, overdue = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    ended = {"expires_at": "2020-01-01T00:00:00Z"}
    hold = envelope("hold.created.v1", hold_id="h1", account="wallet", amount=9, currency="EUR", **ended)
    events = [*opened(), hold, asked("late", 5, account="wallet", **ended), asked("much", 5_000)]
    await lone_desk.apply_events(events_of(lone_desk, events))
    shard = await lone_desk.shard()
    told = [tuple(row) for row in await lone_desk.pool.fetch(overdue)]
    assert told == [(shard, datetime(2020, 1, 1, tzinfo=UTC), 2)]
    assert [tuple(row) for row in await lone_desk.pool.fetch(declined)] == [(TENANT, "insufficient_credits", 1)]
    await lone_desk.ledger.expire_holds(shard)
    assert await lone_desk.pool.fetch(overdue) == []


def test_people_are_explained_holds_and_card_payments(run: Run) -> None:
    shown = run("explain", "h1").stdout
    assert "hold h1: captured" in shown
    assert "hold.captured.v1 part of psp: applied" in shown
    assert "hold.adjusted.v1 more of psp: applied" in shown
    assert "adjusted    to 0.95 EUR\n" in shown
    shown = run("explain", "visa", "hotel").stdout
    assert "visa hotel: approved, confirmed" in shown
    assert "approved, 2.00 EUR of 2.00 EUR" in shown
    assert "approved, authorized 3.00 EUR, captured 0.00 EUR, refunded 0.00 EUR, superseded" in shown
    assert "read from   ledger.authorizations[0] offset" in shown
    shown = run("explain", "visa", "much").stdout
    assert "declined (insufficient_credits, account_not_found), 0.00 EUR of 50.00 EUR" in shown
    assert run("explain", "wallet").stdout.startswith("wallet")


# --- what is held, in the other reads --------------------------------------------------------------------------------


def test_balance_says_what_is_held_and_what_is_available_beside_what_is_posted(run: Run) -> None:
    (line,) = _lines(run("balance", "--account", "wallet", "--json"))
    # 10,000 paid in; 150 captured, 40 given back, and 30 captured of the hold; 150 of the hotel is still held.
    assert (line["posted"], line["held"], line["available"]) == (-(10_000 - 150 + 40 - 30), 150, 10_000 - 140 - 150)
    shown = run("balance", "--account", "wallet").stdout
    assert "1.50 EUR" in shown
    assert "97.10 EUR" in shown


def test_a_statement_has_what_was_captured_and_never_what_is_only_held(run: Run) -> None:
    lines = _lines(run("statement", "--account", "wallet", "--json"))
    assert [(line["debit"], line["credit"]) for line in lines] == [(0, 10_000), (150, 0), (0, 40), (10, 0), (20, 0)]
    assert lines[-1]["balance"] == 10_000 - (150 - 40 + 10 + 20)


async def test_reads_are_of_one_state(books: Settings) -> None:
    """What is read of an authorization in one answer can't be of two moments: its row, and its events."""
    async with reading(books) as connection:
        before = await queries.authorization(connection, TENANT, "visa", "part")
        async with desk_on(books) as desk:
            await desk.apply_events(events_of(desk, [later("confirmed", "part", id="after")]))
        assert await queries.authorization(connection, TENANT, "visa", "part") == before
    async with reading(books) as connection:
        assert (await queries.authorization(connection, TENANT, "visa", "part"))["confirmed"]


async def test_a_list_of_thousands_is_whole_and_in_order(database_url: str, shards: int) -> None:
    settings = replace(Settings(), database_url=database_url, shards=shards)
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO tenants VALUES ('acme', 0)")
    await connection.execute(
        "INSERT INTO cards SELECT 0, gen_random_uuid(), 'acme', 'c' || lpad(n::text, 5, '0'), 'team', $1"
        " FROM generate_series(1, 5000) n",
        OWNER,
    )
    await connection.close()
    async with reading(settings) as books:
        found = [card["card_id"] async for card in queries.list_cards(books, TENANT)]
    assert found == [f"c{number:05}" for number in range(1, 5_001)]
