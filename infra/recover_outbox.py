"""Outputs that were not published get the new epoch: in their ids, and in the chain over them."""

from __future__ import annotations

import asyncpg

from infra.chain import next_head
from infra.outbox import DEAD_LETTER, Output, frame, pack, unpack
from infra.settings import SettingsError

PAGE_ROWS = 100


async def move_outputs(
    connection: asyncpg.Connection, shard: int, after: int, head: bytes, epoch: int, last: int
) -> bytes:
    """Give all outputs of a shard after a seq this epoch; returns the head after the last of them.

    `head` is the one after `after`, `last` the last seq of the books. Writes: outbox.
    Raises: SettingsError when the outbox hasn't all of them.
    """
    while after < last:
        rows = await connection.fetch(
            "SELECT seq_first, seq_last, epoch, body FROM outbox WHERE shard = $1 AND seq_last > $2"
            " ORDER BY seq_last LIMIT $3",
            shard,
            after,
            PAGE_ROWS,
        )
        if not rows or rows[0]["seq_first"] != after + 1:
            raise SettingsError(
                f"shard {shard}: its outbox has no row that begins at seq {after + 1}, so what comes after can't be "
                "published; restore a backup that has it, or rebuild the books with `ledgerstream replay journal`"
            )
        changed = []
        for row in rows:
            body, head = _moved(shard, row, head, epoch)
            changed.append((shard, row["seq_last"], epoch, head, body))
        await connection.executemany(
            "UPDATE outbox SET epoch = $3, head_hash = $4, body = $5 WHERE shard = $1 AND seq_last = $2", changed
        )
        after = rows[-1]["seq_last"]
    return head


def _moved(shard: int, row: asyncpg.Record, head: bytes, epoch: int) -> tuple[bytes, bytes]:
    frames = []
    for seq, output in enumerate(unpack(row["body"]), row["seq_first"]):
        moved = _renamed(output, f"{row['epoch']}-{shard}-{seq}", f"{epoch}-{shard}-{seq}")
        frames.append(frame(moved))
        head = next_head(head, moved, f"{epoch}-{shard}-{seq}")
    return pack(frames), head


def _renamed(output: Output, old: str, new: str) -> Output:
    """A dead letter keeps its bytes: its place is in its headers only, which the relay makes of the row."""
    if output.type == DEAD_LETTER or output.value is None:
        return output
    opening = b'{"specversion":"1.0","id":"'
    before = opening + old.encode() + b'"'
    if not output.value.startswith(before):
        raise SettingsError(f"the outbox has another output where {old} should stand; restore a backup")
    return output._replace(value=opening + new.encode() + b'"' + output.value[len(before) :])
