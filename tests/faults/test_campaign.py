"""The fault campaign, short: every fault once, on one ledger under load, and nothing is lost or doubled."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.campaign.nemesis import FAULTS
from tests.campaign.run import Campaign, Plan

pytestmark = pytest.mark.timeout(600)  # A step waits for servers that come back, on a busy machine.

SEED = 1


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="ledgerstream-faults-") as name:
        # Postgres runs as somebody else, who has to get here.
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
async def ledger(folder: Path) -> AsyncIterator[Campaign]:
    """A ledger at work: two workers, two relays, a clock, a publisher and a subscriber."""
    running = Campaign(Plan(seed=SEED, rate_least=40.0, drain_seconds=200.0), folder)
    try:
        await running.begin()
        yield running
    finally:
        await running.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_borne(ledger: Campaign, fault: str) -> None:
    assert await ledger.harm(fault, random.Random(f"{SEED} {fault}"))
    await ledger.works()


async def test_after_all_of_them_everything_is_read_and_published_in_the_end(ledger: Campaign) -> None:
    assert await ledger.settle() == []


async def test_after_all_of_them_nothing_is_lost_or_doubled(ledger: Campaign) -> None:
    assert (await ledger.judge([])).faults == []
