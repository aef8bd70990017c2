"""The fault campaign, short: every fault once, and every defect that it must find."""

from __future__ import annotations

import pytest

from tests.campaign.defects import DEFECTS
from tests.campaign.run import Plan, campaign

# Which faults bring a defect to light, and by which seed they do so soon.
FOUND_BY = {
    "trust-kafka": ("offsets", 10),
    "offsets-first": ("kill", 1),
    "publish-outside": ("kill,kafka-cut", 1),
    "no-keys": ("again", 1),
    "no-fencing": ("rivals", 1),
    "one-epoch": ("late-end", 1),
    "early-cache": ("postgres-cut,postgres-kill", 1),
}


@pytest.mark.timeout(600)
async def test_each_fault_once_loses_and_doubles_nothing() -> None:
    verdict = await campaign(Plan(seed=1, scenario="all", calm_seconds=0.3))
    assert verdict.faults == []


def test_each_defect_has_a_campaign_that_finds_it() -> None:
    assert FOUND_BY.keys() == DEFECTS.keys()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("defect", FOUND_BY)
async def test_a_planted_defect_is_found(defect: str) -> None:
    scenario, seed = FOUND_BY[defect]
    plan = Plan(
        seed=seed, scenario=scenario, minutes=0.15, defect=defect, workers=1, relays=1, shards=2, calm_seconds=0.2,
        drain_seconds=60.0,
    )  # fmt: skip
    verdict = await campaign(plan)
    # What was not read in time says nothing.
    assert verdict.read_on
    assert verdict.faults
