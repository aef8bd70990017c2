"""How fast a ledger goes: what its books say of it now, looked at again and again."""

# Looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import asyncpg

from infra.settings import Settings
from tests.campaign.figures import Figures, Look, Phase

LOOK_SECONDS = 10.0
_DONE = "SELECT (SELECT coalesce(sum(next_offset), 0) FROM input_offsets), (SELECT sum(next_seq - 1) FROM shards)"


class Pace:
    """Looks at a ledger; `phase` is whether it is harmed now, `published` counts what it may have read."""

    def __init__(
        self, settings: Callable[[], Settings], published: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        self.figures = Figures()
        self.phase: Phase = "before"
        self._settings, self._published, self._say = settings, published, say
        self._begin = time.monotonic()

    async def progress(self) -> tuple[int, int]:
        """Records read and outputs made so far; zeros where nobody answers."""
        try:
            connection = await asyncpg.connect(self._settings().asyncpg_dsn, timeout=3)
            try:
                read, said = await connection.fetchrow(_DONE, timeout=3) or (0, 0)
                return int(read), int(said)
            finally:
                connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return 0, 0

    async def read_to(self, count: int, seconds_max: float) -> None:
        """Return when so many records were read. Raises: TimeoutError."""
        async with asyncio.timeout(seconds_max):
            while (await self.progress())[0] < count:
                await asyncio.sleep(0.2)

    async def reads_on(self, seconds_max: float) -> None:
        """Return when records are read again. Raises: TimeoutError."""
        least: int | None = None
        async with asyncio.timeout(seconds_max):
            while True:
                # 0 where nobody answers; less than before where commits were lost.
                read = (await self.progress())[0]
                if read and least is not None and read > least:
                    return
                least = min(read, least or read) if read else least
                await asyncio.sleep(0.1)

    async def watch(self) -> None:
        """Say now and then how fast it goes."""
        before, then, phase = await self.progress(), time.monotonic(), self.phase
        while True:
            due = time.monotonic() + LOOK_SECONDS
            while time.monotonic() < due and phase == self.phase:
                await asyncio.sleep(0.1)
            now = await self.progress()
            if not now[1]:
                continue
            seconds = time.monotonic() - then
            read, said = (new - old for new, old in zip(now, before, strict=True))
            look = Look(then - self._begin, seconds, read, said, self._published() - now[0], phase)
            self.figures.looks.append(look)
            if seconds > 1:
                self._say(f"{look.per_second:,.0f} records/s, {said / seconds:,.0f} outputs/s; {look.behind:,} behind")
            before, then, phase = now, time.monotonic(), self.phase
