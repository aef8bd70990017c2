"""The figures as they are found: in the books, and in the streams as a `read_committed` subscriber has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.demo_figures import Figures
from infra.drained import Rest
from infra.kafka.subscriber import committed
from infra.postgres import queries
from infra.postgres.queries import BalanceLine, DeadLetter, EntryDocument, EntryFilter, ParkedEvent, Rejection
from infra.postgres.reading import reading
from infra.postgres.verify import Check, verify
from infra.settings import Settings

OUTPUTS = ("balances", "entries", "outcomes", "dead-letters")


@dataclass(slots=True)
class Found:
    """What there is to show. Shape: per tenant where a tenant comes first; `outputs` in the order of each shard."""

    figures: Figures = field(default_factory=Figures)
    accounts: dict[str, list[BalanceLine]] = field(default_factory=dict)
    breaches: list[tuple[str, EntryDocument]] = field(default_factory=list)
    rejections: list[tuple[str, Rejection]] = field(default_factory=list)
    parked: list[tuple[str, ParkedEvent]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    outputs: list[ConsumerRecord] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


async def find(settings: Settings, tenants: Sequence[str], published: Counter[str], rest: Rest) -> Found:
    """All figures of the books and the streams; `published` is what the producer was acknowledged."""
    found = Found()
    found.figures.published = published
    found.figures.records_unread, found.figures.outputs_unrelayed = rest
    found.outputs = await committed(settings, OUTPUTS)
    async with reading(settings) as connection:
        for tenant in tenants:
            await _read_tenant(connection, tenant, found)
        found.dead_letters = [letter async for letter in queries.list_dead_letters(connection)]
        found.checks = [check async for check in verify(connection, deep=True)]
    found.figures.dead_letters = Counter(letter["code"] for letter in found.dead_letters)
    found.figures.checks_failed = sum(not check["ok"] for check in found.checks)
    _read_streams(found.outputs, found.figures)
    found.figures.duplicates = published.total() - _handled(found)
    return found


async def _read_tenant(connection: AsyncConnection, tenant: str, found: Found) -> None:
    figures = found.figures
    lines, totals = await queries.trial_balance(connection, tenant)
    for line in lines:
        figures.balances[tenant, line["account"], line["currency"]] = line["posted"]
    for total in totals:
        figures.trial_balance[tenant, total["currency"]] = total["total"]
    found.accounts[tenant] = [
        balance
        for name in dict.fromkeys(line["account"] for line in lines)
        for balance in await queries.balance(connection, tenant, name)
    ]
    async for entry in queries.list_entries(connection, tenant, EntryFilter()):
        figures.entries[entry["kind"]] += 1
        figures.breaches.update(entry["breaches"])
        if entry["breaches"]:
            found.breaches.append((tenant, entry))
    async for rejection in queries.list_rejections(connection, tenant):
        found.rejections.append((tenant, rejection))
        figures.rejected[tenant, rejection["code"]] += 1
    async for parked in queries.list_parked(connection, tenant):
        found.parked.append((tenant, parked))
        figures.waiting[tenant, parked["waits_for"] or ""] += 1


def _read_streams(outputs: Iterable[ConsumerRecord], figures: Figures) -> None:
    """Trust nothing: count the types, and see that each shard's seqs are all there, once."""
    seen: Counter[tuple[int, int]] = Counter()
    for record in outputs:
        headers = dict(record.headers)
        seen[int(headers["ledger-shard"]), int(headers["ledger-seq"])] += 1
        if "dlq-code" in headers:
            figures.outputs["dead letter"] += 1
            continue
        event = orjson.loads(record.value)
        figures.outputs[event["type"].removesuffix(".v1")] += 1
        if event["type"] == "balance.changed.v1":
            data = event["data"]
            figures.streamed_balances[event["tenantid"], data["account"], data["currency"]] = data["posted"]
    figures.outputs_doubled = seen.total() - len(seen)
    last = {shard: max(seq for at, seq in seen if at == shard) for shard, _ in seen}
    figures.outputs_missing = sum(last.values()) - len(seen)


def _handled(found: Found) -> int:
    """How many records had an end of their own: all others were duplicates, since all were read."""
    figures = found.figures
    with_entry = figures.entries.total()
    without_entry = sum(
        "entry_id" not in event["data"]["result"]
        for event in map(_event_of, found.outputs)
        if event.get("type") == "command.applied.v1"
    )
    ended = with_entry + without_entry + figures.rejected.total() + figures.waiting.total()
    return ended + figures.dead_letters.total()


def _event_of(record: ConsumerRecord) -> dict[str, Any]:
    if any(name == "dlq-code" for name, _ in record.headers):
        return {}
    event: dict[str, Any] = orjson.loads(record.value)
    return event
