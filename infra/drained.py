"""The point at which nothing is under way any more: everything read, and everything published that came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import asyncpg

from infra.kafka.lag import Reach, reaches
from infra.settings import Settings
from schemas.topics import READ_TOPICS

Place = tuple[str, int]
"""A topic's full name and a partition."""

_LOOK_SECONDS = 0.05
_POSITIONS = """
SELECT DISTINCT ON (topic, partition) topic, partition, next_offset
FROM input_offsets
ORDER BY topic, partition, updated_at DESC
"""
_UNRELAYED = "SELECT coalesce(sum(next_seq - 1 - coalesce(seq, 0)), 0) FROM shards LEFT JOIN relayed USING (shard)"


class NotDrainedError(Exception):
    """The patience was over first; the message says what is left."""


class Rest(NamedTuple):
    """Input records still to be read, outputs still to be published."""

    unread: int
    unrelayed: int


async def until_drained(
    settings: Settings,
    *,
    seconds_max: float,
    progress: Callable[[Rest], None] | None = None,
    while_true: Callable[[], Awaitable[None]] | None = None,
) -> Rest:
    """Return when all that is on the input topics now was read, and all outputs of it were published.

    `while_true` is awaited between two looks; it raises when waiting has become useless.
    Raises: NotDrainedError, SettingsError.
    """
    topics = [settings.topic(name) for name in READ_TOPICS]
    wanted = await reaches(settings, topics)
    deadline = time.monotonic() + seconds_max
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        while True:
            rest = await _rest(connection, wanted)
            if progress is not None:
                progress(rest)
            if rest == (0, 0):
                return rest
            if time.monotonic() > deadline:
                raise NotDrainedError(
                    f"after {seconds_max:g} s {rest.unread} records are still to be read and {rest.unrelayed} outputs "
                    'to be published; see what "ledgerstream run" says'
                )
            if while_true is not None:
                await while_true()
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await connection.close()


async def _rest(connection: asyncpg.Connection, wanted: Mapping[Place, Reach]) -> Rest:
    # Positions first: what a batch wrote out is in the second answer if its position is in the first.
    read: dict[Place, int] = {
        (topic, partition): next_offset for topic, partition, next_offset in await connection.fetch(_POSITIONS)
    }
    unread = sum(max(reach.end - read.get(place, reach.beginning), 0) for place, reach in wanted.items())
    return Rest(unread, int(await connection.fetchval(_UNRELAYED)))
