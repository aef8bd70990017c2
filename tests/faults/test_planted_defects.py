"""The campaign proves itself: each deliberate defect turns its verdict red, by the line that this defect causes."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.devstack import RunningStack
from tests.campaign.defects import DEFECTS
from tests.campaign.drills import DRILLS, play

pytestmark = pytest.mark.timeout(600)  # A step waits for servers that come back, on a busy machine.


def test_each_defect_has_a_scenario_that_finds_it() -> None:
    assert DRILLS.keys() == DEFECTS.keys()


@pytest.mark.parametrize("defect", DRILLS)
async def test_a_planted_defect_is_found_by_what_it_does(stack: RunningStack, tmp_path: Path, defect: str) -> None:
    played = await play(stack, tmp_path, defect)
    assert played.sound.faults == []
    assert played.caught, played.harmed.faults
