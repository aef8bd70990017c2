"""A worker that is killed anywhere loses nothing and doubles nothing."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from infra.settings import Settings
from tests.fixtures.programs import running, start
from tests.fixtures.relay import books
from tests.fixtures.traffic import assert_each_ended_once, publish, traffic

__all__ = ["books"]


def regrouped(settings: Settings, number: int) -> Settings:
    """The same ledger for a worker that doesn't wait until the group has noticed that the one before is dead."""
    return replace(settings, group_id=f"{settings.group_id}{number}")


@pytest.mark.parametrize("point", ["ledger.decided:2", "ledger.saved:2", "ledger.committed:2", "reader.applied:9"])
async def test_killed_at_any_point_each_event_ends_once(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path, point: str
) -> None:
    small = replace(settings, batch_rows_max=40)
    sent = traffic(1, 120)
    await publish(settings, sent)
    dying = await start(small, "worker", tmp_path / "dying.log", die_at=point)
    assert await dying.ended() == -signal.SIGKILL
    async with running(regrouped(small, 1), "run", tmp_path / "next.log"):
        await assert_each_ended_once(settings, sent)
