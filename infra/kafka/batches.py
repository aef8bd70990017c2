"""Batches of one partition, between the poll that read them and the database transaction that applies them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.events import Event
from infra.records import DeadLetter, Origin

QUEUED_BYTES_MAX = 1024 * 1024
"""Of records that wait: a thousand of a megabyte each must not."""


@dataclass(slots=True)
class Prepared:
    """A batch of one partition, read: its events and what was none, and where the next batch begins."""

    generation: int
    first_offset: int
    next_offset: int
    events: Sequence[Event]
    letters: Sequence[DeadLetter]
    size_bytes: int = 0

    @property
    def rows(self) -> int:
        return len(self.events) + len(self.letters)

    def cut(self, events_most: int | None) -> tuple[Prepared, Prepared | None]:
        """The first so many events, with what was none among them, and the rest."""
        if events_most is None or len(self.events) <= events_most:
            return self, None
        events = list(self.events)
        origin: Origin = events[events_most].carried
        assert origin.record is not None
        middle = origin.record.offset
        before = [letter for letter in self.letters if letter.record.offset < middle]
        after = [letter for letter in self.letters if letter.record.offset >= middle]
        return (
            Prepared(self.generation, self.first_offset, middle, events[:events_most], before),
            Prepared(self.generation, middle, self.next_offset, events[events_most:], after),
        )


class BatchQueue:
    """What was read and waits to be applied; what has piled up is taken as one batch."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._waiting: deque[Prepared] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether a batch can be put without waiting."""
        if not self._waiting:
            return True
        size = sum(prepared.size_bytes for prepared in self._waiting)
        return self.rows < self._rows_max and size < QUEUED_BYTES_MAX

    @property
    def rows(self) -> int:
        """How many wait."""
        return sum(prepared.rows for prepared in self._waiting)

    async def put(self, prepared: Prepared) -> None:
        """Add a batch as soon as there is room."""
        while not self.has_room:
            self._emptied.clear()
            await self._emptied.wait()
        self._waiting.append(prepared)
        self._filled.set()

    async def get(self) -> Prepared | None:
        """The next batch, with those that follow it as far as they make one of no more rows than allowed.

        None when there is nothing, and what there was has been dropped.
        """
        if not self._waiting:
            self._filled.clear()
            await self._filled.wait()
            if not self._waiting:
                return None
        return self.added_to(self._waiting.popleft())

    def added_to(self, batch: Prepared, suits: Callable[[Prepared], bool] = lambda _: True) -> Prepared:
        """A batch with those that follow it as far as they suit and make one that isn't larger than allowed."""
        taken = 0
        for following in self._waiting:
            if not (self._fits(batch, following) and suits(following)):
                break
            batch = _joined(batch, following)
            taken += 1
        # Only now: whatever fails before leaves them where they were.
        for _ in range(taken):
            self._waiting.popleft()
        self._emptied.set()
        return batch

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._emptied.set()
        self._filled.set()

    def _fits(self, one: Prepared, other: Prepared) -> bool:
        # A batch that is tried again and again would otherwise get what is polled meanwhile, again and again.
        small = one.rows + other.rows <= self._rows_max and one.size_bytes < QUEUED_BYTES_MAX
        return one.generation == other.generation and small


def _joined(one: Prepared, other: Prepared) -> Prepared:
    return Prepared(
        one.generation,
        one.first_offset,
        other.next_offset,
        [*one.events, *other.events],
        [*one.letters, *other.letters],
        one.size_bytes + other.size_bytes,
    )
