"""One call that every property, fault and stress test ends in: the books, and what was said of them, hold together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from infra.outbox import DEAD_LETTER, TOPICS, TYPES, Output, unpack
from infra.postgres.load import Connection
from infra.postgres.migrate import GENESIS_HEAD
from schemas.registry import OUTPUT_TYPES
from schemas.wire import read_output

AUDITS = Path(__file__).parents[1] / "infra" / "postgres" / "audits"
FREE_TEXTS = {"entry.recorded.v1": ("description", "metadata"), "event.rejected.v1": ("message",)}

Place = tuple[int, int, int]
"""epoch, shard, seq"""


async def assert_coherent(connection: Connection, outputs: Mapping[Place, bytes | None] | None = None) -> None:
    """Fail with the first thing that doesn't hold.

    `outputs` is what a subscriber got, by epoch, shard and seq; where it is given, it must be all that was said.
    The outbox must still be whole, from seq 1 on.
    """
    await _assert_balances_follow(connection)
    said = await _assert_outbox(connection)
    _assert_versions_follow(said)
    await _assert_entries_said(connection, said)
    await _assert_audits_empty(connection)
    if outputs is not None:
        assert dict(outputs) == {place: output.value for place, output in said.items()}


# --- rows -----------------------------------------------------------------------------------------------------------


async def _assert_balances_follow(connection: Connection) -> None:
    """Every entry sums to zero in each currency; every balance and version is the fold of its postings and holds."""
    postings = await connection.fetch(
        "SELECT shard, seq, leg, account_id, currency, amount, posted_after, version"
        " FROM postings ORDER BY shard, seq, leg"
    )
    sums: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    posted: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    versions: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    entries: defaultdict[tuple[int, int], list[asyncpg.Record]] = defaultdict(list)
    for row in postings:
        entries[row["shard"], row["seq"]].append(row)
    holding: defaultdict[tuple[int, int], list[asyncpg.Record]] = defaultdict(list)
    held: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    for row in await connection.fetch("SELECT * FROM hold_changes ORDER BY shard, seq"):
        holding[row["shard"], row["seq"]].append(row)
    event_seqs = await connection.fetch("SELECT shard, seq, event_seq FROM entries")
    entry_of = {(row["shard"], row["event_seq"]): (row["shard"], row["seq"]) for row in event_seqs}
    for event in sorted(entry_of.keys() | holding.keys()):
        place = entry_of.get(event, event)
        legs = entries.pop(place, []) if event in entry_of else []
        for row in legs:
            sums[(*place, row["currency"])] += row["amount"]
            posted[row["shard"], row["account_id"], row["currency"]] += row["amount"]
        for balance in {(row["shard"], row["account_id"], row["currency"]) for row in [*legs, *holding[event]]}:
            versions[balance] += 1
            posted[balance] += 0
        for row in holding[event]:
            balance = (row["shard"], row["account_id"], row["currency"])
            held[balance] += row["amount"]
            assert (row["held_after"], row["version"]) == (held[balance], versions[balance]), (event, dict(row))
        for row in legs:
            balance = (row["shard"], row["account_id"], row["currency"])
            assert (row["posted_after"], row["version"]) == (posted[balance], versions[balance]), (place, dict(row))
    assert not entries, "postings without an entry"
    assert not [place for place, total in sums.items() if total], "entries that don't sum to zero"
    balances = await connection.fetch(
        "SELECT shard, account_id, currency, posted, pending, held, version FROM balances"
    )
    found = {(row[0], row[1], row[2]): (row["posted"], row["held"], row["version"]) for row in balances}
    assert found == {balance: (posted[balance], held[balance], versions[balance]) for balance in posted}
    assert not [row for row in balances if row["pending"]]
    await _assert_held(connection, {balance: amount for balance, amount in held.items() if amount})


async def _assert_held(connection: Connection, held: Mapping[tuple[Any, ...], int]) -> None:
    """What is held of each balance is what its open holds and authorizations hold."""
    open_ones: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    for table in ("holds", "authorizations"):
        for row in await connection.fetch(f"SELECT shard, account_id, currency, held FROM {table} WHERE held <> 0"):
            open_ones[row["shard"], row["account_id"], row["currency"]] += row["held"]
    assert dict(open_ones) == held


async def _assert_audits_empty(connection: Connection) -> None:
    for audit in sorted(AUDITS.glob("*.sql")):
        faults = await connection.fetch(f"SELECT fault FROM ({audit.read_text()}) AS audit LIMIT 3")
        assert not faults, f"{audit.stem}: {[row['fault'] for row in faults]}"


# --- what was said --------------------------------------------------------------------------------------------------


async def _assert_outbox(connection: Connection) -> dict[Place, Output]:
    """Each output stands at its place, is as published, and is sealed by the chain; gives them all."""
    shards = {row["shard"]: row for row in await connection.fetch("SELECT * FROM shards")}
    heads, nexts = dict.fromkeys(shards, GENESIS_HEAD), dict.fromkeys(shards, 1)
    said: dict[Place, Output] = {}
    for row in await connection.fetch("SELECT * FROM outbox ORDER BY shard, seq_last"):
        shard = row["shard"]
        assert row["seq_first"] == nexts[shard], f"shard {shard} has a gap before {row['seq_first']}"
        for seq, output in enumerate(unpack(row["body"]), row["seq_first"]):
            _assert_output(output, f"{row['epoch']}-{shard}-{seq}", row["recorded_at"].isoformat())
            heads[shard] = _next_head(heads[shard], output, f"{row['epoch']}-{shard}-{seq}")
            said[row["epoch"], shard, seq] = output
            nexts[shard] = seq + 1
        assert row["seq_last"] == nexts[shard] - 1
        assert row["head_hash"] == heads[shard], f"the chain of shard {shard} breaks in {row['seq_first']}…"
    assert {shard: (row["next_seq"], row["head_hash"]) for shard, row in shards.items()} == {
        shard: (nexts[shard], heads[shard]) for shard in shards
    }
    return said


def _assert_output(output: Output, place: str, recorded_at: str) -> None:
    if output.type == DEAD_LETTER:
        assert TOPICS[output.topic] == "dead-letters"
        assert {"dlq-topic", "dlq-partition", "dlq-offset", "dlq-code"} <= {name for name, _ in output.headers}
        return
    assert output.value is not None
    envelope, _ = read_output(output.value)
    document = orjson.loads(output.value)
    kind = OUTPUT_TYPES[envelope.type]
    assert envelope.id == place
    assert envelope.time.isoformat() == recorded_at
    assert (TYPES[output.type], TOPICS[output.topic]) == (envelope.type, kind.topic)
    assert output.key == kind.key.format_map(document | document["data"]).encode()
    assert output.traceparent == (envelope.traceparent.encode() if envelope.traceparent else None)
    if envelope.type == "entry.recorded.v1":
        assert document["data"]["seq"] == int(place.rpartition("-")[2])


def _next_head(head: bytes, output: Output, place: str) -> bytes:
    """The hash chain, computed from the published bytes alone."""
    value = output.value or b""
    if output.type == DEAD_LETTER:
        facts = {name: (text or b"").decode() for name, text in output.headers if name.startswith("dlq-")}
        names = [f"dlq-{name}" for name in ("topic", "partition", "offset", "timestamp", "code", "message", "group")]
        canonical = orjson.dumps([place, {name: facts[name] for name in names}])
        return _hash(head, canonical, _hash(value))
    kind = TYPES[output.type]
    if kind == "balance.changed.v1":
        return head
    data = orjson.loads(value)["data"]
    texts = [name for name in FREE_TEXTS.get(kind, ()) if name in data]
    rest, hashes = value[:-2], []
    for name in reversed(texts):
        # Quotes inside of texts are escaped; a name that metadata has too stands further back than the metadata.
        begin = rest.index(f',"{name}":'.encode())
        rest, text = rest[:begin], rest[begin:]
        hashes.insert(0, _hash(text))
    return _hash(head, rest, *hashes)


def _hash(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=32).digest()


def _assert_versions_follow(said: Mapping[Place, Output]) -> None:
    """Per account and currency versions count from 1, and each state is the one before plus its change."""
    last: dict[bytes | None, dict[str, Any]] = {}
    for _, output in sorted(said.items()):
        if TYPES[output.type] != "balance.changed.v1":
            continue
        now = orjson.loads(output.value or b"")["data"]
        before = last.get(output.key, {"version": 0, "posted": 0, "pending": 0, "held": 0})
        assert now["version"] == before["version"] + 1, now
        for name in ("posted", "pending", "held"):
            assert now[name] == before[name] + now["change"][name], now
        natural = now["posted"] if now["type"] in ("asset", "expense") else -now["posted"]
        assert now["available"] == natural - now["held"], now
        last[output.key] = now


async def _assert_entries_said(connection: Connection, said: Mapping[Place, Output]) -> None:
    """Each entry was published once, and its balances with it: one for each account and currency."""
    documents = {
        place: orjson.loads(output.value or b"") for place, output in said.items() if output.type != DEAD_LETTER
    }
    published = {
        (place[1], place[2]): document["data"]
        for place, document in documents.items()
        if document["type"] == "entry.recorded.v1"
    }
    rows = await connection.fetch("SELECT shard, seq, entry_id FROM entries")
    assert {(row["shard"], row["seq"]): str(row["entry_id"]) for row in rows} == {
        place: data["entry_id"] for place, data in published.items()
    }
    states: defaultdict[str, dict[tuple[str, str], tuple[int, int]]] = defaultdict(dict)
    for document in documents.values():
        data = document["data"]
        if document["type"] == "balance.changed.v1" and "entry_id" not in data:
            assert data["change"]["posted"] == 0, "posted without an entry"
            assert data["change"]["held"], "a change of nothing"
        elif document["type"] == "balance.changed.v1":
            balance = (data["account_id"], data["currency"])
            assert balance not in states[data["entry_id"]], "two changes of one balance by one event"
            states[data["entry_id"]][balance] = (data["posted"], data["version"])
    for data in published.values():
        legs = data["postings"]
        told = states.pop(data["entry_id"])
        posted = {(leg["account_id"], leg["currency"]): (leg["posted_after"], leg["version"]) for leg in legs}
        # What an event holds on another account than it posts to changes with it, too.
        assert posted.items() <= told.items()
    assert not states


def published_by_place(records: Iterable[tuple[Place, bytes | None]]) -> dict[Place, bytes | None]:
    """What a subscriber got, as `assert_coherent` takes it; fails on an output that came twice."""
    by_place: dict[Place, bytes | None] = {}
    for place, value in records:
        assert place not in by_place, f"{place} came twice"
        by_place[place] = value
    return by_place
