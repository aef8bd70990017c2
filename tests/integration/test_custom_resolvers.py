"""Custom resolvers: whatever one does, its own payment is what suffers, and the worker goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import psutil
import pytest

from infra.resolvers import sandbox as sandboxes
from infra.resolvers.pending import Answer, Merchant, PendingTransaction, Question
from infra.resolvers.sandbox import Sandbox
from infra.settings import SettingsError

BUDGET = 0.3
"""More than the default: this machine does other things as well."""
DINER = Merchant(merchant_id="m-1", acquirer_id="a-1", mcc="5812", name="Diner", country="FRA")
FINE = Answer(frozenset({"meals"}), {"meals": "line-1"})


def asked(card_id: str, mcc: str = "5812", categories: frozenset[str] | None = None) -> Question:
    merchant = Merchant(merchant_id="m-1", acquirer_id="a-1", mcc=mcc, name="Diner", country="FRA")
    return Question(
        PendingTransaction(
            tenant_id="acme",
            time=datetime(2026, 3, 2, tzinfo=UTC),
            provider="issuer",
            external_id="au-1",
            amount=100,
            currency="EUR",
            card_id=card_id,
            merchant=merchant,
        ),
        categories,
    )


@asynccontextmanager
async def sandbox(class_name: str = "Unruly", *roles: str) -> AsyncIterator[Sandbox]:
    """A sandbox with this class of tests/fixtures/resolvers.py in these roles, by default both."""
    names = dict.fromkeys(roles or ("categories", "lines"), f"tests.fixtures.resolvers:{class_name}")
    made = Sandbox(names, budget=BUDGET)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="module")
async def unruly() -> AsyncIterator[Sandbox]:
    async with sandbox() as made:
        yield made


async def test_categories_then_their_lines_are_resolved() -> None:
    async with sandbox("Good") as good:
        answers = await good.ask([asked("c-1"), asked("c-2", mcc="4111"), asked("c-3")])
    assert answers == [
        Answer(frozenset({"meals"}), {"meals": "meals-of-c-1"}),
        Answer(frozenset(), None),
        Answer(frozenset({"meals"}), {"meals": "meals-of-c-3"}),
    ]


async def test_one_of_the_two_can_be_custom() -> None:
    async with sandbox("Good", "categories") as good:
        assert await good.ask([asked("c-1")]) == [Answer(frozenset({"meals"}), None)]
    async with sandbox("Good", "lines") as good:
        (answer,) = await good.ask([asked("c-1", categories=frozenset({"fuel"}))])
        assert answer.lines == {"fuel": "fuel-of-c-1"}


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("block", "no answer in time"),
        ("spin", "no answer in time"),
        ("late", "no answer in time"),
        ("dawdle", "DisturbedError: no answer within 0.3 s"),
        ("wait", "TimeoutError: no answer within 0.3 s"),
        ("deaf", "TimeoutError: no answer within 0.3 s"),
        ("raise", "ValueError"),
        ("recur", "RecursionError"),
        ("exit", "NonsenseError: raised SystemExit"),
        ("vanish", "no answer in time"),
        ("change", "FrozenInstanceError"),
        ("eat", "MemoryError"),
        *(
            (f"say:{what}", "NonsenseError")
            for what in ("text", "list", "number", "of-numbers", "empty", "long", "nul", "surrogate", "many", "million")
        ),
        *((f"fine:{what}", "NonsenseError") for what in ("list", "number", "long", "nul")),
    ],
)
async def test_what_no_resolver_may_do_costs_its_own_payment_the_answer(unruly: Sandbox, does: str, why: str) -> None:
    began = time.monotonic()
    (answer,) = await unruly.ask([asked(does)])
    assert answer.failed is not None
    assert answer.failed.startswith(why)
    assert time.monotonic() - began < 10
    assert await unruly.ask([asked("fine")]) == [FINE]


async def test_a_blocking_resolver_leaves_the_loop_and_its_neighbours_alone(unruly: Sandbox) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    cards = ["block" if number == 17 else f"fine:{number}x" for number in range(40)]
    answers = await unruly.ask([asked(card) for card in cards])
    ticking.cancel()
    assert [number for number, answer in enumerate(answers) if answer.failed] == [17]
    assert {answer.failed for answer in answers} == {None, "no answer in time"}
    # It was away for over half a second in all: a loop that had been blocked would have stood still.
    assert ticks > 20


@pytest.mark.parametrize("does", ["dawdle", "gorge", "block", "vanish"])
async def test_what_one_does_to_the_others_of_its_process_is_made_good(unruly: Sandbox, does: str) -> None:
    answers = await unruly.ask([asked("fine"), asked(does), asked("fine:x"), asked("fine")])
    assert [answer.failed is None for answer in answers] == [True, False, True, True]


async def test_a_batch_of_which_each_blocks_takes_a_bounded_time(unruly: Sandbox) -> None:
    began = time.monotonic()
    answers = await unruly.ask([asked("block")] * 50)
    assert all(answer.failed for answer in answers)
    patience = 2 * BUDGET + sandboxes.GRACE_SECONDS
    assert time.monotonic() - began < max(sandboxes.ALONE_SECONDS, sandboxes.ALONE_CALLS * patience) + 5


async def test_several_batches_at_once_each_get_their_own_answers(unruly: Sandbox) -> None:
    batches = [unruly.ask([asked("block" if number % 5 == 0 else "fine")]) for number in range(10)]
    for number, (answer,) in enumerate(await asyncio.gather(*batches)):
        assert (answer.failed is None) == (number % 5 != 0)


async def test_what_doesnt_heed_its_cancellation_is_thrown_away_after_a_while(unruly: Sandbox) -> None:
    answers = await unruly.ask([asked("deaf")] * 60)
    assert all(answer.failed for answer in answers)
    assert await unruly.ask([asked("fine")]) == [FINE]


async def test_a_host_that_is_gone_is_started_again() -> None:
    async with sandbox() as made:
        await made.ask([asked("kill_host")])
        assert made._host is not None
        await made._host.wait()
        await made.ask([asked("vanish")] * 3)
        assert await made.ask([asked("fine")]) == [FINE]


async def test_nothing_is_left_running_even_what_blocks() -> None:
    ours = psutil.Process()
    before = {child.pid for child in ours.children(recursive=True)}
    async with sandbox() as made:
        host, *children = [child for child in ours.children(recursive=True) if child.pid not in before]
        assert len(children) == sandboxes.CHILDREN
        blocked = asyncio.create_task(made.ask([asked("block")]))
        await asyncio.sleep(BUDGET)
        assert not blocked.done()
    _, alive = psutil.wait_procs([host, *children], timeout=5)
    assert alive == []
    assert [answer.failed for answer in await blocked] == ["no answer in time"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_package.module:Class", "No module named 'no_such_package'"),
        ("tests.fixtures.resolvers:NoSuchClass", "has no NoSuchClass"),
        ("tests.fixtures.resolvers", "has no"),
        ("tests.fixtures.resolvers:Unmade", "the tariff file is missing"),
        ("not a name", "No module named"),
    ],
)
async def test_a_name_that_leads_to_nothing_is_the_operators_to_mend(name: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as fault:
        await Sandbox({"categories": name}, budget=BUDGET).start()
    assert f"LEDGER_EXPENSE_CATEGORY_RESOLVER={name}" in str(fault.value)


async def test_one_that_takes_too_long_to_be_made_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "START_SECONDS", 2.0)
    made = Sandbox({"lines": "tests.fixtures.resolvers:Slow"}, budget=BUDGET)
    with pytest.raises(SettingsError, match=r"LEDGER_LINE_OF_CREDIT_RESOLVER.*ready within 2 s"):
        await made.start()
