"""Whose turn it is on a shard: what somebody waits for comes first, and bounds how long the rest may take."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from infra.ahead import EVENTS_MOST

URGENT_IN_A_ROW = 4
"""After so many urgent turns one is given to what has waited meanwhile: it may be late, but never stands still."""
WANTED_SECONDS = 5.0
"""So long after an urgent batch others are kept short: the next one may come at any time."""
EVENTS_LEAST = EVENTS_MOST
"""Below so many a batch costs hardly less, and the money falls behind; so many are still decided ahead of the lock."""
SIDE_BY_SIDE = 2
"""So many that don't hurry at a time then: while one waits for Postgres another can be decided."""
_MEASURED_FROM = 16


class Turns:
    """The order in which a process's batches hold a shard: as they came, but what is urgent first.

    In memory, in front of the lock in Postgres: only who has the turn asks for that.
    """

    def __init__(self, seconds_max: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds_max`: how long a batch that doesn't hurry may hold its shard where somebody waits for decisions."""
        self._seconds_max = seconds_max
        self._clock = clock
        self._lines: defaultdict[int, _Line] = defaultdict(_Line)
        self._rest = asyncio.Semaphore(SIDE_BY_SIDE)
        self._rest_of: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wanted_until = -1.0
        self._seconds_an_event = 0.0

    @asynccontextmanager
    async def take(self, shard: int, *, events: int = 0, urgent: bool = False) -> AsyncIterator[None]:
        """Hold the shard's turn for the block. `events`: how many are applied in it; 0 where that isn't known yet."""
        if urgent:
            self._wanted_until = self._clock() + WANTED_SECONDS
        async with self._among_the_rest(shard, urgent=urgent), self._lines[shard].turn(urgent=urgent):
            begun = self._clock()
            try:
                yield
            finally:
                if events >= _MEASURED_FROM:
                    measured = (self._clock() - begun) / events
                    self._seconds_an_event += (measured - self._seconds_an_event) / 4

    @asynccontextmanager
    async def _among_the_rest(self, shard: int, *, urgent: bool) -> AsyncIterator[None]:
        """Where somebody waits for decisions, few batches that don't hurry go side by side, whatever their shards.

        Each would hold its shard for as long as all of them take together. One a shard: those that only wait for each
        other, on a shard that stands still, would keep all others from theirs.
        """
        if urgent or not self._is_wanted():
            yield
            return
        async with self._rest_of[shard], self._rest:
            yield

    def _is_wanted(self) -> bool:
        return self._clock() < self._wanted_until

    def events_most(self) -> int | None:
        """How many events a batch that doesn't hurry should have now; None: as many as it likes."""
        if not self._is_wanted():
            return None
        if not self._seconds_an_event:
            return EVENTS_LEAST
        return max(EVENTS_LEAST, int(self._seconds_max / self._seconds_an_event))


class _Line:
    """Who waits for one shard."""

    def __init__(self) -> None:
        self._held = False
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._urgent_in_a_row = 0

    @asynccontextmanager
    async def turn(self, *, urgent: bool) -> AsyncIterator[None]:
        """Hold it for the block."""
        await self.enter(urgent=urgent)
        try:
            yield
        finally:
            self.leave()

    async def enter(self, *, urgent: bool) -> None:
        if not self._held:
            self._held = True
            return
        waiting = self._urgent if urgent else self._others
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was given to us in the same moment: the next one has it.
                self.leave()
            elif turn in waiting:
                waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give the turn to the next."""
        for waiting in (self._urgent, self._others):
            # Whoever was cancelled in this moment hasn't had the time to step out of the line.
            while waiting and waiting[0].done():
                waiting.popleft()
        late = self._others and self._urgent_in_a_row >= URGENT_IN_A_ROW
        if self._urgent and not late:
            self._urgent_in_a_row = self._urgent_in_a_row + 1 if self._others else 0
            self._urgent.popleft().set_result(None)
        elif self._others:
            self._urgent_in_a_row = 0
            self._others.popleft().set_result(None)
        else:
            self._held = False
