"""Reject parked events before their patience is over, through the ledger itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import asyncpg

from consumers.translate import read_command
from infra.kafka.topics import ensure_topics
from infra.ledger import Ledger, LedgerRules
from infra.postgres.engine import open_pool
from infra.settings import Settings
from schemas.topics import OUTPUT_TOPICS, TOPICS


async def give_up(settings: Settings, places: Sequence[tuple[int, int]], *, reason: str) -> int:
    """Reject the events parked at these (shard, seq), one database transaction a shard; how many still waited."""
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        counts = await ensure_topics(settings, connection)
    finally:
        await connection.close()
    pool = await open_pool(settings, name="give-up")
    try:
        rules = LedgerRules(
            shards=settings.shards,
            partitions={name: counts[settings.topic(name)] for name in OUTPUT_TOPICS},
            value_bytes_max={name: TOPICS[name].max_message_bytes for name in OUTPUT_TOPICS},
            group=settings.group_id,
        )
        ledger = Ledger(pool, rules, read_command)
        by_shard: defaultdict[int, list[int]] = defaultdict(list)
        for shard, seq in places:
            by_shard[shard].append(seq)
        return sum([await ledger.give_up(shard, seqs, reason=reason) for shard, seqs in sorted(by_shard.items())])
    finally:
        await pool.close()
