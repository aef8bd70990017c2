"""Holds and card payments on a real Postgres: what is kept is what was decided, whatever memory and concurrency do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from alembic import command
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from domain.authorizations import AuthorizationAdvised, AuthorizationRequested
from domain.events import Event
from domain.reservations import Resolution
from infra.postgres import migrate as migrations
from infra.postgres.migrate import migrate, sqlalchemy_url
from infra.records import Origin
from infra.settings import Settings
from schemas.wire import with_resolution
from tests.coherence import assert_coherent
from tests.fixtures.cards import OWNER, card_payment
from tests.fixtures.desk import NOON, Desk, Envelope, desk_on, envelope, payment

LINES = {"food": "L1", "travel": "L2"}


def opened(funds: int = 1_000, limit: int = 100) -> list[Envelope]:
    """Two lines of this limit, and a wallet with these funds."""
    owned = {"owner_type": "employee", "owner_ref": OWNER, "currency": "EUR", "credits_limit": limit}
    legs = [{"account": "bank", "amount": funds, "currency": "EUR"}, {"account": "wallet", "amount": -funds}]
    return [
        *(envelope("expense_category.create.v1", code=code, name=code, match=[{}]) for code in LINES),
        *(
            envelope("line_of_credit.create.v1", line_of_credit_id=line_id, expense_category=code, **owned)
            for code, line_id in LINES.items()
        ),
        envelope("card.assign.v1", card_id="c1", owner_type="employee", owner_ref=OWNER),
        envelope("account.create.v1", name="wallet", type="liability", floor={"EUR": 0}),
        envelope("account.create.v1", name="bank", type="asset"),
        envelope("entry.post.v1", postings=[leg | {"currency": "EUR"} for leg in legs]),
    ]


def asked(external_id: str = "x1", amount: int = 80, *, advice: bool = False, **more: Any) -> Envelope:
    kind = "advised" if advice else "requested"
    return envelope(f"authorization.{kind}.v1", **card_payment(external_id, amount, **more))


def later(what: str, external_id: str = "x1", **more: Any) -> Envelope:
    document = envelope(f"authorization.{what}.v1", provider="visa", external_id=external_id, **more)
    document["data"]["event_id"] = document["id"]
    return document


def events_of(desk: Desk, documents: Sequence[Envelope]) -> list[Event]:
    """Events with what resolvers would have answered: both lines."""
    events = [desk.event(document) for document in documents]
    for event in events:
        if isinstance(event.command, AuthorizationRequested | AuthorizationAdvised):
            event.command.resolution = Resolution(frozenset(LINES), LINES)
            origin: Origin = event.carried
            origin.data = with_resolution(origin.data, {"categories": sorted(LINES), "lines": LINES})
    return events


async def apply(desk: Desk, *documents: Envelope) -> Any:
    return await desk.apply_events(events_of(desk, documents))


async def told(desk: Desk, kind: str) -> list[dict[str, Any]]:
    return [output["data"] for output in await desk.outputs() if output["type"] == f"{kind}.v1"]


async def rows(desk: Desk, table: str) -> list[dict[str, Any]]:
    return [dict(row.items()) for row in await desk.pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]


async def expensed(desk: Desk) -> list[int]:
    return [row["expensed_credits"] for row in await rows(desk, "lines_of_credit")]


async def wallet(desk: Desk) -> tuple[int, int]:
    row = await desk.pool.fetchrow(
        "SELECT posted, held FROM balances JOIN accounts USING (shard, account_id) WHERE name = 'wallet'"
    )
    assert row is not None
    return row["posted"], row["held"]


def story() -> list[Envelope]:
    """Everything that can happen to holds and card payments, some of it before its time."""
    return [
        *opened(10_000, 1_000),
        later("captured", "hotel", amount=10, final=False),
        later("confirmed", "hotel"),
        asked("hotel", 200, account="wallet"),
        later("adjusted", "hotel", amount=300),
        later("captured", "hotel", amount=150, final=False),
        later("refunded", "hotel", amount=40),
        later("released", "hotel", reason="partial"),
        later("captured", "hotel", amount=5),
        asked("big", 5_000, account="wallet"),
        later("captured", "big", amount=50),
        asked("big", 5_000, account="wallet", advice=True),
        asked("alone", 70),
        asked("fuel", 1, account="wallet", hold_amount=100),
        later("captured", "fuel", amount=63),
        later("captured", "forced", amount=9, force_post=True, currency="EUR", account="new"),
        envelope("hold.captured.v1", hold_id="h1", amount=10, final=False, capture_id="1"),
        envelope("hold.created.v1", hold_id="h1", account="wallet", amount=90, currency="EUR", direction="out"),
        envelope("hold.adjusted.v1", hold_id="h1", adjustment_id="1", amount=95),
        envelope("hold.created.v1", hold_id="h2", account="wallet", amount=20, currency="EUR"),
        envelope("hold.captured.v1", hold_id="h2", amount=15),
        envelope("hold.created.v1", hold_id="h3", account="wallet", amount=20, currency="EUR"),
        envelope("hold.voided.v1", hold_id="h3"),
        envelope("line_of_credit.set_limit.v1", line_of_credit_id="L2", credits_limit=9_000),
        envelope("line_of_credit.terminate.v1", line_of_credit_id="L2"),
        envelope("card.unassign.v1", card_id="c1", owner_type="employee", owner_ref=OWNER),
    ]


TABLES = ("holds", "authorizations", "lines_of_credit", "expense_categories", "cards", "hold_changes")


async def test_what_is_kept_is_the_same_in_one_batch_and_in_many_with_and_without_memory(
    ledger_settings: Settings,
) -> None:
    found = []
    documents = story()
    for size, cached in ((100, 100_000), (1, 100_000), (1, 0)):
        async with desk_on(ledger_settings, suffix=f".{size}.{cached}", accounts_cached_max=cached) as desk:
            for begin in range(0, len(documents), size):
                await apply(desk, *documents[begin : begin + size])
            ours = f"SELECT * FROM authorizations WHERE tenant_id = 'acme{desk.suffix}' ORDER BY external_id"
            authorizations = [tuple(row)[3:6] + tuple(row)[9:] for row in await desk.pool.fetch(ours)]
            held = f"SELECT * FROM holds WHERE tenant_id = 'acme{desk.suffix}' ORDER BY hold_id"
            holds = [tuple(row)[3:4] + tuple(row)[5:14] for row in await desk.pool.fetch(held)]
            lines = f"SELECT * FROM lines_of_credit WHERE tenant_id = 'acme{desk.suffix}' ORDER BY line_of_credit_id"
            credit = [tuple(row)[4:] for row in await desk.pool.fetch(lines)]
            codes = await desk.codes()
            found.append((authorizations, holds, credit, sorted(codes)))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 5
    assert not [code for code in found[0][3] if code not in ("applied", "parked")]
    connection = await asyncpg.connect(ledger_settings.asyncpg_dsn)
    try:
        await assert_coherent(connection)
    finally:
        await connection.close()


async def test_of_two_concurrent_requests_of_80_on_a_line_of_100_one_is_approved(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as one, desk_on(ledger_settings) as two:
        await apply(one, *opened())
        await asyncio.gather(*(apply(desk, asked(name)) for desk, name in ((one, "a"), (two, "b"))))
        decisions = await told(one, "authorization.decided")
        assert sorted(decision["decision"] for decision in decisions) == ["approved", "declined"]
        assert await expensed(one) == [80, 80]


async def test_a_request_delivered_again_is_not_decided_again(lone_desk: Desk) -> None:
    document = asked(account="wallet")
    await apply(lone_desk, *opened(), document)
    before = await rows(lone_desk, "authorizations")
    for again in (document, document | {"id": "other"}, document):
        assert (await apply(lone_desk, again)).duplicates == 1
    assert len(await told(lone_desk, "authorization.decided")) == 1
    assert (await rows(lone_desk, "authorizations"), await expensed(lone_desk)) == (before, [80, 80])


@pytest.mark.parametrize("what", ["hold", "authorization"])
async def test_of_a_late_capture_and_an_expiry_exactly_one_wins(ledger_settings: Settings, what: str) -> None:
    async with desk_on(ledger_settings) as one, desk_on(ledger_settings) as two:
        await apply(one, *opened())
        if what == "hold":
            held = {"account": "wallet", "amount": 80, "currency": "EUR", "direction": "out"}
            await apply(one, envelope("hold.created.v1", hold_id="h1", **held))
            capture = envelope("hold.captured.v1", hold_id="h1")
        else:
            await apply(one, asked(account="wallet"))
            capture = later("captured", amount=80)
        one.now = two.now = NOON + timedelta(days=8)
        _, expired = await asyncio.gather(apply(one, capture), two.ledger.expire_holds(await two.shard()))
        posted, held_now = await wallet(one)
        late = what == "authorization" or not expired
        assert (posted, held_now) == (-920 if late else -1_000, 0)
        outcomes = await one.outcomes()
        assert ((capture["id"], "hold_not_pending") in outcomes) == (what == "hold" and expired == 1)
        assert await two.ledger.expire_holds(await two.shard()) == 0
        async with one.pool.acquire() as connection:
            await assert_coherent(connection)


async def test_expiry_gives_back_what_is_held_and_expensed_as_an_event_of_its_own(lone_desk: Desk) -> None:
    held = {"account": "wallet", "amount": 50, "currency": "EUR"}
    ends = (NOON + timedelta(hours=2)).isoformat()
    await apply(lone_desk, *opened(), asked(account="wallet"), asked("alone", 10, expires_at=ends))
    await apply(lone_desk, envelope("hold.created.v1", hold_id="h1", expires_at=ends, **held))
    shard = await lone_desk.shard()
    assert await lone_desk.ledger.expire_holds(shard) == 0
    lone_desk.now = NOON + timedelta(days=8)
    assert await lone_desk.ledger.expire_holds(shard) == 3
    assert (await wallet(lone_desk), await expensed(lone_desk)) == ((-1_000, 0), [0, 0])
    journaled = await lone_desk.pool.fetch("SELECT * FROM events WHERE type = 'hold.expired.v1' ORDER BY seq")
    assert [row["source"] for row in journaled] == ["ledgerstream"] * 3
    assert journaled[0]["event_id"].startswith(("expire:h1:", "expire:visa:alone:"))
    assert {tuple(orjson.loads(row["data"])) for row in journaled} == {
        ("expires_at", "hold_id"),
        ("expires_at", "external_id", "provider"),
    }
    last = (await told(lone_desk, "authorization.changed"))[-1]
    assert (last["status"], last["cause"]["type"]) == ("released", "hold.expired.v1")
    async with lone_desk.pool.acquire() as connection:
        await assert_coherent(connection)


async def test_a_change_of_what_is_held_says_what_it_is_about(lone_desk: Desk) -> None:
    await apply(lone_desk, *opened(), asked(account="wallet"))
    await apply(lone_desk, envelope("hold.created.v1", hold_id="h1", account="wallet", amount=9, currency="EUR"))
    changes = [change for change in await told(lone_desk, "balance.changed") if change["change"]["held"]]
    assert [change["change"] for change in changes] == [
        {"posted": 0, "held": 80, "pending": 0},
        {"posted": 0, "held": 9, "pending": 0},
    ]
    assert changes[0]["authorization"] == {"provider": "visa", "external_id": "x1"}
    assert changes[1]["hold_id"] == "h1"
    assert "entry_id" not in changes[0] | changes[1]


async def test_an_owner_has_one_line_for_a_category_and_another_after_it_ended(lone_desk: Desk) -> None:
    await apply(lone_desk, *opened())
    owned = {"owner_type": "employee", "owner_ref": OWNER.upper(), "expense_category": "food", "currency": "EUR"}
    await apply(lone_desk, envelope("line_of_credit.create.v1", id="twice", line_of_credit_id="L3", **owned))
    await apply(
        lone_desk,
        envelope("line_of_credit.terminate.v1", line_of_credit_id="L1"),
        envelope("line_of_credit.create.v1", line_of_credit_id="L4", **owned),
        envelope("line_of_credit.set_limit.v1", id="gone", line_of_credit_id="L1", credits_limit=5),
    )
    outcomes = dict(await lone_desk.outcomes())
    assert (outcomes["twice"], outcomes["gone"]) == ("line_of_credit_exists", "line_of_credit_not_found")
    assert len(await rows(lone_desk, "lines_of_credit")) == 3


async def test_a_database_of_before_is_migrated_with_what_is_in_it(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(Settings(), database_url=empty_database_url, shards=2)
    engine = create_async_engine(sqlalchemy_url(settings), poolclass=NullPool)

    def to_first(connection: Any) -> None:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    monkeypatch.setattr(migrations, "_upgrade", to_first)
    await migrate(settings)
    monkeypatch.undo()
    await engine.dispose()
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(
            "INSERT INTO accounts (shard, account_id, tenant_id, name, type)"
            " VALUES (0, '00000000-0000-8000-8000-000000000001', 'acme', 'old', 'asset')"
        )
        await migrate(settings)
        assert await connection.fetchval("SELECT name FROM accounts") == "old"
        for table in TABLES:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    finally:
        await connection.close()
    async with desk_on(settings) as desk:
        await apply(desk, payment(tenant="other"), *opened(), asked(account="wallet"))
        assert [decision["decision"] for decision in await told(desk, "authorization.decided")] == ["approved"]
