"""The program ends when it is told to, whatever its parts wait for."""

from __future__ import annotations

import asyncio

import pytest

from consumers import app


async def test_a_part_that_does_not_come_to_its_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ENDING_SECONDS", 0.01)
    stop = asyncio.Event()
    stop.set()
    cut_off = asyncio.Event()

    async def wait_for_nobody() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    async with asyncio.timeout(10):
        await app._all_until_stop([wait_for_nobody()], stop)
    assert cut_off.is_set()


async def test_the_first_failure_ends_all_and_is_raised() -> None:
    stop = asyncio.Event()

    async def fail() -> None:
        raise ValueError("the reason")

    async def work() -> None:
        await stop.wait()

    with pytest.raises(ValueError, match="the reason"):
        await app._all_until_stop([work(), fail()], stop)
