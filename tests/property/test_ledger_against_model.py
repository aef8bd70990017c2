"""The ledger on Postgres against a ledger of plain dicts: whatever comes, in whatever batches, both say the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from infra.devstack import RunningStack
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.database import database
from tests.fixtures.desk import NOON, Desk, Envelope, desk_on
from tests.model import CASH, Book, Model

TENANTS = ("acme", "bolt", "coda")
EXAMPLES, EVENTS_MIN, EVENTS_MAX = 20, 60, 220

_runs = count(1)

# --- what may come --------------------------------------------------------------------------------------------------

few = st.sampled_from(["1", "2", "3"])
currency = st.sampled_from(["EUR"] * 8 + ["JPY", "USD", "XXQ"])
amount = st.one_of(st.integers(1, 30), st.integers(1, 30), st.sampled_from([0, -1, 100, 2**62, 2**63 - 1, 2**63]))
fees = st.sampled_from([0, 0, 1, 5, 40, -1])
wallet = st.sampled_from(["wallet:a", "wallet:b", "wallet:c"])
cash = st.sampled_from([CASH, CASH, "bank", "wallet:a", "platform:fees"])
anything = st.sampled_from(["wallet:a", "wallet:b", "wallet:c", "bank", CASH, "customer_balance:1", "none"])
limit = st.one_of(
    st.none(), st.just({"EUR": 0}), st.fixed_dictionaries({"EUR": st.integers(-50, 50)}), st.just({"JPY": 5})
)
when = st.integers(-5 * 24 * 60, 10)
"""Minutes after NOON."""


def event(
    type_name: str, *, plain: bool = False, optional: dict[str, Any] | None = None, **required: Any
) -> st.SearchStrategy[Envelope]:
    """An event of this type; a plain one is free of what would keep it from those it belongs to."""
    facts = type_name.split(".")[0] in ("payment", "refund", "transfer", "payout", "dispute") and not plain
    extra = {"description": st.sampled_from(["a", 'b "c"']), "metadata": st.just({"description": "x", "n": [1.5]})}
    optional = (optional or {}) | (extra | {"provider": st.just("x")} if facts else {})
    return st.fixed_dictionaries(
        {
            "type": st.just(type_name),
            "data": st.fixed_dictionaries(required, optional=optional),
            "tenantid": st.sampled_from(TENANTS),
            "minutes": when,
            "source": st.sampled_from(["a", "b"]),
        },
        optional={} if plain else {"idempotencykey": st.sampled_from([f"k{n}" for n in range(40)])},
    )


money = {"amount": amount, "currency": currency, "customer_id": few}
leg = st.tuples(anything, st.integers(-30, 30), st.sampled_from(["EUR", "EUR", "EUR", "JPY"]))
FACTS = [
    event(
        "payment.captured.v1", payment_id=few, **money, optional={"capture_id": few, "fees": fees, "cash_account": cash}
    ),
    event("payment.captured.v1", payment_id=few, amount=st.integers(50, 99), currency=st.just("EUR"), customer_id=few),
    event("refund.succeeded.v1", refund_id=few, **money, optional={"payment_id": few, "cash_account": cash}),
    event("refund.failed.v1", refund_id=few, optional={"failure_code": few}),
    event("transfer.created.v1", transfer_id=few, **money | {"merchant_id": few}),
    event("transfer.reversed.v1", transfer_id=few, optional={"amount": amount, "reversal_id": few}),
    event(
        "payout.paid.v1",
        payout_id=few,
        amount=amount,
        currency=currency,
        merchant_id=few,
        optional={"cash_account": cash},
    ),
    event("payout.failed.v1", payout_id=few),
    event(
        "dispute.opened.v1", dispute_id=few, **money, optional={"payment_id": few, "fees": fees, "cash_account": cash}
    ),
    event("dispute.won.v1", dispute_id=few, optional={"amount": amount, "outcome_id": few}),
    event(
        "dispute.lost.v1",
        dispute_id=few,
        optional={"amount": amount, "outcome_id": few, "charge_to": st.sampled_from(["customer", "platform"])},
    ),
    event("dispute.reopened.v1", dispute_id=few, reopening_id=few, amount=amount, optional={"fees": fees}),
]


def _of_one_customer(number: str) -> list[st.SearchStrategy[Envelope]]:
    """Events that fit together: one customer's payments, and what follows them."""
    mine = {"currency": st.just("EUR"), "customer_id": st.just(number)}
    payment_id, some = st.just(number), st.integers(1, 60)
    return [
        event(
            "payment.captured.v1",
            plain=True,
            payment_id=payment_id,
            amount=st.integers(50, 99),
            **mine,
            optional={"capture_id": few},
        ),
        event("refund.succeeded.v1", plain=True, refund_id=few, payment_id=payment_id, amount=some, **mine),
        event("refund.failed.v1", plain=True, refund_id=few),
        event("dispute.opened.v1", plain=True, dispute_id=few, payment_id=payment_id, amount=some, **mine),
        event("dispute.lost.v1", plain=True, dispute_id=few, optional={"amount": some, "outcome_id": few}),
    ]


STORIES = [drawn for number in ("1", "2", "3") for drawn in _of_one_customer(number)]
REQUESTS = [
    event(
        "account.create.v1",
        name=st.one_of(wallet, st.sampled_from(["bank", "customer_balance:1"])),
        type=st.sampled_from(["asset", "liability"]),
        optional={"currency": currency, "parent": anything, "floor": limit.filter(bool), "ceiling": limit.filter(bool)},
    ),
    event(
        "account.update.v1",
        name=anything,
        optional={
            "status": st.sampled_from(["active", "frozen"]),
            "parent": st.one_of(st.none(), anything),
            "floor": limit,
            "ceiling": limit,
        },
    ),
    event("account.close.v1", name=anything),
    event(
        "entry.post.v1", legs=st.lists(leg, min_size=1, max_size=4), balanced=st.integers(0, 9), stale=st.integers(0, 9)
    ),
    event("entry.post.v1", legs=st.lists(leg, min_size=1, max_size=4), balanced=st.just(1), stale=st.just(1)),
    event("entry.reverse.v1", nth=st.integers(0, 60)),
    event("period.close.v1", through=st.sampled_from(["2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01"])),
    event("tenant.create.v1"),
]
histories = st.lists(
    st.one_of(*FACTS, *STORIES, *REQUESTS, st.tuples(st.just("again"), st.integers(0, 500), st.integers(0, 5))),
    min_size=EVENTS_MIN,
    max_size=EVENTS_MAX,
)


class Scribe:
    """Writes what was drawn down as envelopes; some say again, in one way or another, what was said before."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.written: list[Envelope] = []

    def write(self, drawn: Any, books: Model) -> Envelope:
        if isinstance(drawn, tuple) and not self.written:
            drawn = {"type": "tenant.create.v1", "data": {}, "tenantid": "acme", "minutes": 0, "source": "a"}
        document = self._again(*drawn[1:]) if isinstance(drawn, tuple) else self._first(drawn, books)
        self.written.append(document)
        return document

    def _again(self, back: int, way: int) -> Envelope:
        document = self.written[-1 - back % len(self.written)]
        other: dict[str, Any] = {}
        if way in (1, 2):
            other["id"] = f"e{len(self.written)}"
        if way in (2, 3) and "amount" in document["data"]:
            other["data"] = document["data"] | {"amount": 7}
        if way == 4:
            other |= {"id": f"e{len(self.written)}", "data": document["data"] | {"description": "told again"}}
            if "description" not in document["data"] and document["type"].split(".")[0] in ("period", "tenant"):
                del other["data"]
        if document["type"] in ("account.close.v1",):
            other.pop("data", None)
        return document | other

    def _first(self, drawn: dict[str, Any], books: Model) -> Envelope:
        number = len(self.written)
        tenant = drawn["tenantid"] + self.suffix
        document = {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": drawn["source"],
            "type": drawn["type"],
            "time": (NOON + timedelta(minutes=drawn["minutes"])).isoformat(),
            "tenantid": tenant,
            "data": self._data(drawn, books.books[tenant]),
        }
        if "idempotencykey" in drawn or drawn["type"].split(".")[0] in ("account", "entry", "period", "tenant"):
            document["idempotencykey"] = drawn.get("idempotencykey", f"own{number}")
        return document

    def _data(self, drawn: dict[str, Any], book: Book) -> dict[str, Any]:
        data = drawn["data"]
        if "nth" in data:
            ids = list(book.entry_numbers)
            return {"entry_id": ids[data["nth"] % len(ids)] if ids else "none"}
        if "legs" not in data:
            return dict(data)
        postings = [{"account": name, "amount": amount, "currency": unit} for name, amount, unit in data["legs"]]
        if data["balanced"]:
            postings = [leg for leg in postings if leg["amount"]]
            for unit in {leg["currency"] for leg in postings}:
                rest = -sum(leg["amount"] for leg in postings if leg["currency"] == unit)
                postings += [{"account": "wallet:b", "amount": rest, "currency": unit}] if rest else []
        if data["stale"] == 0 and postings:
            postings[0]["expect_version"] = 2
        return {"postings": postings}


# --- what must be ---------------------------------------------------------------------------------------------------


async def assert_agree(desk: Desk, book: Book, tenant: str) -> None:
    """Everything that a reader can see of a tenant is what the model says."""
    told, entries = [], []
    for output in await desk.outputs(tenant):
        data = output["data"]
        match output["type"]:
            case "entry.recorded.v1":
                told.append(("entry", len(entries)))
                entries.append(data)
            case "event.rejected.v1":
                told.append(("rejected", data["event"]["id"], data["code"]))
            case "event.parked.v1":
                told.append(("parked", data["event"]["id"], data["code"]))
            case "command.applied.v1":
                told.append(("applied", data["event"]["id"]))
    assert told == book.told
    numbers = {entry["entry_id"]: number for number, entry in enumerate(entries)}
    book.entry_numbers = numbers
    assert [_readable(entry, numbers) for entry in entries] == [_comparable(entry) for entry in book.entries]
    await _assert_books_agree(desk, book, tenant)


def _readable(entry: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    legs = [
        tuple(leg[name] for name in ("account", "currency", "amount", "posted_after", "version"))
        for leg in entry["postings"]
    ]
    return {
        "kind": entry["kind"],
        "references": entry["references"],
        "description": entry.get("description"),
        "metadata": entry.get("metadata"),
        "effective_at": _instant(entry["effective_at"]),
        "occurred_at": _instant(entry["occurred_at"]),
        "recorded_at": _instant(entry["recorded_at"]),
        "breaches": entry["breaches"],
        "cause": entry["cause"]["id"],
        "reverses": numbers[entry["reverses"]] if "reverses" in entry else None,
        "postings": sorted(legs),
    }


def _comparable(entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"postings": sorted(entry["postings"])}


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


async def _assert_books_agree(desk: Desk, book: Book, tenant: str) -> None:
    balances = await desk.pool.fetch(
        "SELECT name, b.currency, posted, version FROM balances b JOIN accounts USING (shard, account_id)"
        " WHERE tenant_id = $1",
        tenant,
    )
    assert {(row[0], row[1]): (row[2], row[3]) for row in balances} == {
        place: (book.posted[place], version) for place, version in book.versions.items() if version
    }
    accounts = await desk.pool.fetch(
        "SELECT a.name, a.type, a.currency, p.name, a.status FROM accounts a"
        " LEFT JOIN accounts p ON (p.shard, p.account_id) = (a.shard, a.parent_id) WHERE a.tenant_id = $1",
        tenant,
    )
    assert {row[0]: tuple(row)[1:] for row in accounts} == {
        name: tuple(account[field] for field in ("type", "currency", "parent", "status"))
        for name, account in book.accounts.items()
    }
    parked = await desk.pool.fetch(
        "SELECT event_id FROM parked JOIN events USING (shard, seq) WHERE tenant_id = $1 ORDER BY seq", tenant
    )
    assert sorted(row[0] for row in parked) == sorted(e["id"] for queue in book.waiting.values() for e in queue)


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def books(stack: RunningStack) -> Any:
    async with database(stack, 3) as url:
        yield replace(Settings(), database_url=url, shards=3)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(history=histories, seed=st.integers(0, 2**32))
async def test_every_history_ends_as_the_contract_says(books: Settings, history: Sequence[Any], seed: int) -> None:
    chance = random.Random(seed)
    suffix = f".{next(_runs)}"
    scribe, model = Scribe(suffix), Model()
    # Few accounts in memory, so that some are dropped and loaded again; a second writer, so that memory goes stale.
    async with desk_on(books, accounts_cached_max=chance.choice([0, 9, 100_000])) as one, desk_on(books) as two:
        one.now = two.now = await _latest(one)
        rest, judged = list(history), []
        while rest:
            batch = []
            for drawn in rest[: (size := chance.choice([1, 3, 10, 40]))]:
                document = scribe.write(drawn, model)
                batch.append(document)
                if not model.handle(document, one.now):
                    judged.append(document)
            del rest[:size]
            await chance.choice([one, one, two]).apply(*batch)
            for tenant in list(model.books):
                await assert_agree(one, model.books[tenant], tenant)
        await _again_in_other_batches(one, two, judged, chance)
        for tenant, book in model.books.items():
            await assert_agree(one, book, tenant)
        async with one.pool.acquire() as connection:
            await assert_coherent(connection)


async def _latest(desk: Desk) -> datetime:
    return (await desk.pool.fetchval("SELECT max(nullif(last_recorded_at, '-infinity')) FROM shards")) or NOON


async def _again_in_other_batches(one: Desk, two: Desk, judged: Sequence[Envelope], chance: random.Random) -> None:
    """Deliver a part once more, as it was. Whatever was judged keeps its delivery: nothing may change."""
    before = await one.count("events")
    for desk in (one, two):
        begin, size = chance.randrange(len(judged)), chance.choice([1, 7, 50])
        part = list(judged[begin:])
        for start in range(0, len(part), size):
            await desk.apply(*part[start : start + size])
    assert await one.count("events") == before
