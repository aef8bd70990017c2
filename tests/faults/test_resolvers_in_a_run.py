"""Custom resolvers in a real `ledgerstream run`: whatever one does, the worker lives and everybody else is served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from infra.devstack import RunningStack
from tests.fixtures.fleet import Fleet, running_fleet
from tests.fixtures.issuer import OWNER, WALLET, Issuer
from tests.fixtures.programs import start

CATEGORIES, LINES = "LEDGER_EXPENSE_CATEGORY_RESOLVER", "LEDGER_LINE_OF_CREDIT_RESOLVER"
UNRULY = "tests.fixtures.resolvers:Unruly"
BUDGET = 0.5
FINE = 5
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
async def fleet(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """`ledgerstream run` with resolvers that do what the card that they are asked about says."""
    named = {CATEGORIES: UNRULY, LINES: UNRULY, "LEDGER_RESOLVER_TIMEOUT": str(BUDGET)}
    async with running_fleet(stack, tmp_path_factory.mktemp("run"), "run", **named) as running:
        yield running


async def with_a_line(fleet: Fleet) -> Issuer:
    """A tenant with the line of credit that the resolvers name."""
    issuer = Issuer(fleet)
    issuer.says("expense_category.create", code="meals", name="Meals")
    line = {"line_of_credit_id": "line-1", "expense_category": "meals", "currency": "EUR", "credits_limit": 1_000_00}
    issuer.says("line_of_credit.create", **line, **OWNER)
    await issuer.all_read()
    return issuer


@pytest.mark.parametrize("does", ["block", "wait", "raise", "say:text", "say:of-numbers", "eat", "gorge", "vanish"])
async def test_what_no_resolver_may_do_declines_its_own_payment_and_no_other(fleet: Fleet, does: str) -> None:
    issuer = await with_a_line(fleet)
    worker = psutil.Process(fleet.programs["run0"].process.pid)
    memory = worker.memory_info().rss
    issuer.asks("before", 10_00, card_id="fine")
    issuer.asks("unruly", 10_00, card_id=does)
    issuer.asks("after", 10_00, card_id="fine")
    await issuer.all_read()
    assert await issuer.answers() == {
        "before": ("approved", None),
        "unruly": ("declined", "resolver_failed"),
        "after": ("approved", None),
    }
    (declined,) = (await issuer.decisions())["unruly"]
    assert declined["reasons"] == ["resolver_failed"]
    assert declined["lines_of_credit"] == declined["expense_categories"] == []
    assert worker.memory_info().rss - memory < 50 * MEGABYTE


async def test_others_are_answered_while_a_resolver_blocks(fleet: Fleet) -> None:
    blocked, others = await with_a_line(fleet), await with_a_line(fleet)
    for number in range(FINE):
        blocked.asks(f"blocked-{number}", 10_00, card_id="block", partition=0)
    await blocked.published()
    for number in range(FINE):
        others.asks(f"fine-{number}", 10_00, card_id="fine", partition=1)
        paid = {"payment_id": f"p-{number}", "amount": 5_00, "currency": "EUR", "customer_id": "c"}
        others.says("payment.captured", **paid)
        await others.published()
    await fleet.drained()
    # Asked for later, and answered before: nobody waited for a resolver that isn't theirs.
    unanswered_until = min(
        datetime.fromisoformat(data["decided_at"]) for (data,) in (await blocked.decisions()).values()
    )
    answered = [datetime.fromisoformat(data["decided_at"]) for (data,) in (await others.decisions()).values()]
    paid_at = [datetime.fromisoformat(data["recorded_at"]) for data in await others.heard("entries")]
    assert len(answered) == len(paid_at) == FINE
    assert max(answered + paid_at) < unanswered_until
    assert set((await blocked.answers()).values()) == {("declined", "resolver_failed")}
    assert set((await others.answers()).values()) == {("approved", None)}


@pytest.mark.parametrize(
    ("variable", "name", "why"),
    [
        (CATEGORIES, "no_such_package.module:Class", "No module named 'no_such_package'"),
        (LINES, "tests.fixtures.resolvers:Unmade", "the tariff file is missing"),
    ],
)
async def test_a_resolver_that_cant_be_loaded_ends_the_start_with_a_line_that_says_so(
    fleet: Fleet, tmp_path: Path, variable: str, name: str, why: str
) -> None:
    program = await start(fleet.settings, "worker", tmp_path / "worker.log", **{variable: name})
    try:
        assert await program.ended() == 2
    finally:
        await program.kill()
    last = program.lines()[-1]
    assert last.startswith(f"Error: {variable}={name}: ")
    assert why in last
    assert last.endswith("name a class that can be imported, as package.module:Class")


async def test_with_the_resolver_none_the_account_alone_decides(stack: RunningStack, tmp_path: Path) -> None:
    async with running_fleet(stack, tmp_path, "run", **{CATEGORIES: "none"}) as fleet:
        issuer = Issuer(fleet)
        await issuer.opens(funds=50_00)
        issuer.asks("first", 40_00, account=WALLET)
        issuer.asks("second", 40_00, account=WALLET)
        issuer.asks("no-account", 1_00)
        await issuer.all_read()
        assert await issuer.answers() == {
            "first": ("approved", None),
            "second": ("declined", "insufficient_balance"),
            "no-account": ("declined", "no_line_of_credit"),
        }
        assert (await issuer.wallet())[-1] == (50_00, 40_00)
