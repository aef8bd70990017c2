"""The ledger on Postgres against a ledger of plain dicts, as a machine that anything may happen to in any order.

Batches of any size through one of two writers, what was said before said again, followers before what they follow,
patience that ends, events given up, time that passes. After each step all that was published is compared; in the end
all that can be read. Longer runs: LEDGER_TEST_MACHINE_EXAMPLES and LEDGER_TEST_MACHINE_STEPS.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from infra.devstack import RunningStack
from infra.postgres import queries
from infra.postgres.reading import reading
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.database import database
from tests.fixtures.desk import Desk, Envelope, desk_on
from tests.model import Book, Model
from tests.property.test_ledger_against_model import FACTS, REQUESTS, STORIES, TENANTS, Scribe, assert_agree, event

# Not settings of the program, which refuses those it doesn't know.
EXAMPLES = int(os.environ.pop("LEDGER_TEST_MACHINE_EXAMPLES", "12"))
STEPS = int(os.environ.pop("LEDGER_TEST_MACHINE_STEPS", "14"))
SHARDS = 3
PATIENCE = timedelta(days=1)
Answer = TypeVar("Answer")

few = st.sampled_from(["1", "2", "3"])
again = st.tuples(st.just("again"), st.integers(0, 500), st.integers(0, 5))
batches = st.lists(st.one_of(*FACTS, *STORIES, *REQUESTS, again), min_size=1, max_size=40)


@st.composite
def towers(draw: st.DrawFn) -> list[Any]:
    """Four levels of events, each of which waits for the one after it: a refund that failed before it was made …"""
    number, tenant = draw(few), draw(st.sampled_from(TENANTS))
    mine = {"currency": st.just("EUR"), "customer_id": st.just(number)}
    some, this = st.integers(1, 60), st.just(number)
    levels = [
        event("refund.failed.v1", plain=True, refund_id=this),
        event("dispute.lost.v1", plain=True, dispute_id=this, optional={"amount": some, "outcome_id": few}),
        event("dispute.opened.v1", plain=True, dispute_id=this, payment_id=this, amount=some, **mine),
        event("refund.succeeded.v1", plain=True, refund_id=this, payment_id=this, amount=some, **mine),
        event("payment.captured.v1", plain=True, payment_id=this, amount=st.integers(60, 99), **mine),
    ]
    return [draw(level) | {"tenantid": tenant} for level in levels[: draw(st.integers(1, len(levels)))]]


class LedgerMachine(RuleBasedStateMachine):
    """Two writers on one database, and the model beside them."""

    stack: RunningStack

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = AsyncExitStack()
        self.model, self.scribe = Model(), Scribe("")
        self.judged: list[Envelope] = []

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(work)

    @initialize(cached=st.sampled_from([0, 9, 100_000]))
    def open(self, cached: int) -> None:
        self.run(self._open(cached))

    async def _open(self, cached: int) -> None:
        url = await self.opened.enter_async_context(database(self.stack, SHARDS))
        self.settings = replace(Settings(), database_url=url, shards=SHARDS)
        # One drops accounts from its memory, the other lets what it remembers go stale.
        rules = {"patience_seconds": PATIENCE.total_seconds()}
        one = desk_on(self.settings, accounts_cached_max=cached, **rules)
        self.desks = [await self.opened.enter_async_context(each) for each in (one, desk_on(self.settings, **rules))]

    @property
    def desk(self) -> Desk:
        return self.desks[0]

    # --- what may happen ----------------------------------------------------------------------------------------------

    @rule(batch=batches, writer=st.integers(0, 1))
    def send(self, batch: Sequence[Any], writer: int) -> None:
        self._send(batch, writer)

    @rule(tower=towers(), writer=st.integers(0, 1), order=st.randoms(use_true_random=False))
    def send_what_waits_for_one_another(self, tower: list[Any], writer: int, order: Any) -> None:
        if order.random() < 0.5:
            order.shuffle(tower)
        self._send(tower, writer)

    def _send(self, batch: Sequence[Any], writer: int) -> None:
        documents = []
        for drawn in batch:
            document = self.scribe.write(drawn, self.model)
            documents.append(document)
            if not self.model.handle(document, self.desk.now):
                self.judged.append(document)
        self.run(self.desks[writer].apply(*documents))

    @precondition(lambda self: self.judged)
    @rule(begin=st.integers(0, 1_000), size=st.sampled_from([1, 7, 50]), writer=st.integers(0, 1))
    def deliver_again_in_other_batches(self, begin: int, size: int, writer: int) -> None:
        part = self.judged[begin % len(self.judged) :][:60]
        before = self.run(self.desk.count("events"))
        for start in range(0, len(part), size):
            self.run(self.desks[writer].apply(*part[start : start + size]))
        assert self.run(self.desk.count("events")) == before, "what was judged was judged again"

    @rule(hours=st.sampled_from([1, 12, 24, 25]), writer=st.integers(0, 1))
    def let_time_pass(self, hours: int, writer: int) -> None:
        for desk in self.desks:
            desk.now += timedelta(hours=hours)
        ended = 0
        for shard in range(SHARDS):
            ended += self.run(self.desks[writer].ledger.expire_parked(shard))
        assert ended == sum(book.give_up(self.desk.now, patience=PATIENCE) for book in self.model.books.values())

    @precondition(lambda self: any(book.parked for book in self.model.books.values()))
    @rule(which=st.integers(0, 1_000), writer=st.integers(0, 1))
    def give_one_up(self, which: int, writer: int) -> None:
        waiting = [(tenant, place) for tenant, book in self.model.books.items() for place in book.parked]
        tenant, place = waiting[which % len(waiting)]
        shard, seq = self.run(self._row_of(tenant, place))
        assert self.run(self.desks[writer].ledger.give_up(shard, [seq], reason="given up")) == 1
        self.model.books[tenant].give_up(self.desk.now, only=place)

    async def _row_of(self, tenant: str, place: tuple[str, str]) -> tuple[int, int]:
        row = await self.desk.pool.fetchrow(
            "SELECT shard, seq FROM parked JOIN events USING (shard, seq)"
            " WHERE tenant_id = $1 AND source = $2 AND event_id = $3",
            tenant,
            *place,
        )
        assert row is not None, f"{place} of {tenant} should be parked"
        return row["shard"], row["seq"]

    # --- what must be -------------------------------------------------------------------------------------------------

    @invariant()
    def what_was_published_is_what_the_model_says(self) -> None:
        for tenant, book in list(self.model.books.items()):
            self.run(assert_agree(self.desk, book, tenant))

    def teardown(self) -> None:
        try:
            if hasattr(self, "desks"):
                self.run(self._assert_reads_agree())
        finally:
            self.run(self.opened.aclose())
            self.runner.close()

    async def _assert_reads_agree(self) -> None:
        async with reading(self.settings) as connection:
            for tenant, book in self.model.books.items():
                await _assert_reader_sees(connection, tenant, book)
        async with self.desk.pool.acquire() as connection:
            await assert_coherent(connection)


async def _assert_reader_sees(connection: Any, tenant: str, book: Book) -> None:
    """Rejections, parked events, entries, balances and statements, as the command line shows them."""
    refused = [(told[1], told[2]) for told in book.told if told[0] == "rejected"]
    rejections = [each async for each in queries.list_rejections(connection, tenant)]
    assert [(each["event"]["id"], each["code"]) for each in reversed(rejections)] == refused
    parked = [each async for each in queries.list_parked(connection, tenant)]
    assert {
        (each["event"]["source"], each["event"]["id"]): (each["since"], each["code"]) for each in parked
    } == book.parked
    entries = [each async for each in queries.list_entries(connection, tenant)]
    assert [(each["kind"], each["breaches"]) for each in entries] == [
        (each["kind"], each["breaches"]) for each in book.entries
    ]
    for name in book.accounts:
        balances = await queries.balance(connection, tenant, name)
        posted = {currency: amount for (account, currency), amount in book.posted.items() if account == name}
        versions = {currency: number for (account, currency), number in book.versions.items() if account == name}
        assert {each["currency"]: (each["posted"], each["version"]) for each in balances} == {
            currency: (posted[currency], version) for currency, version in versions.items()
        }
        legs = sorted(
            (leg[1], max(leg[2], 0), max(-leg[2], 0))
            for entry in book.entries
            for leg in entry["postings"]
            if leg[0] == name
        )
        lines = [each async for each in queries.statement(connection, tenant, name)]
        assert sorted((each["currency"], each["debit"], each["credit"]) for each in lines) == legs


def test_whatever_happens_in_any_order_readers_see_what_the_contract_says(stack: RunningStack) -> None:
    class Machine(LedgerMachine):
        pass

    Machine.stack = stack
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
