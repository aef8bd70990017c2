"""Trying again: a wait that grows, and one log line per change of state instead of one per try."""

from __future__ import annotations

import asyncio
import logging
import random

log = logging.getLogger(__name__)


class Outage:
    """What many wait for at once: each fault is said by the first who meets it, its end by the last who is past it."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._said: set[str] = set()

    def is_news(self, thing: str, fault: str) -> bool:
        """`thing` waits because of this fault; whether nobody has said so yet."""
        self._waiting.add(thing)
        news = fault not in self._said
        self._said.add(fault)
        return news

    def ends(self, thing: str) -> bool:
        """`thing` waits no longer; whether it was the last."""
        self._waiting.discard(thing)
        if self._waiting:
            return False
        self._said.clear()
        return True


class Patience:
    """What is tried again and again; `wait` after a fault, `over` after a success."""

    def __init__(
        self, thing: str, *, seconds_first: float = 0.05, seconds_most: float = 5.0, outage: Outage | None = None
    ) -> None:
        self._thing = thing
        self._outage = Outage() if outage is None else outage
        self._seconds_first = seconds_first
        self._seconds_most = seconds_most
        self._seconds = seconds_first
        self._fault: str | None = None

    async def wait(
        self, fault: str, stop: asyncio.Event | None = None, *, unforeseen: BaseException | None = None
    ) -> None:
        """Say the fault if it is another than before, then wait, longer each time; `stop` ends the wait.

        A fault that nobody has foreseen is said with its traceback.
        """
        # What Postgres adds in lines of its own belongs to the same line of ours.
        fault = " ".join(fault.split())
        if fault != self._fault and self._outage.is_news(self._thing, fault):
            log.warning("%s: %s; trying again", self._thing, fault, exc_info=unforeseen)
        self._fault = fault
        # Spread out, so that many who wait for one thing don't come back in step.
        seconds = self._seconds * random.uniform(0.75, 1.25)
        self._seconds = min(self._seconds * 2, self._seconds_most)
        await sleep_unless(stop, seconds)

    def over(self) -> None:
        """The thing works; say so if it was said that it didn't."""
        if self._fault is not None and self._outage.ends(self._thing):
            log.info("%s: fine again", self._thing)
        self._fault = None
        self._seconds = self._seconds_first


async def sleep_unless(stop: asyncio.Event | None, seconds: float) -> None:
    """Sleep, or less if `stop` is set meanwhile."""
    if stop is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def any_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Return when one of these events is set, or after so many seconds."""
    waiting = {asyncio.create_task(event.wait()) for event in events}
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
