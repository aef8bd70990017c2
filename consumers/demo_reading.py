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
from domain.expiry import EXPIRY_TYPE
from infra.drained import Rest
from infra.kafka.subscriber import committed
from infra.postgres import queries
from infra.postgres.queries import (
    AuthorizationDocument,
    BalanceLine,
    CategoryDocument,
    DeadLetter,
    EntryDocument,
    EntryFilter,
    LineDocument,
    ParkedEvent,
    Rejection,
)
from infra.postgres.reading import reading
from infra.postgres.verify import Check, verify
from infra.settings import Settings

OUTPUTS = ("balances", "entries", "decisions", "outcomes", "dead-letters")


@dataclass(slots=True)
class Found:
    """What there is to show. Shape: per tenant where a tenant comes first; `outputs` in the order of each shard."""

    figures: Figures = field(default_factory=Figures)
    accounts: dict[str, list[BalanceLine]] = field(default_factory=dict)
    breaches: list[tuple[str, EntryDocument]] = field(default_factory=list)
    rejections: list[tuple[str, Rejection]] = field(default_factory=list)
    parked: list[tuple[str, ParkedEvent]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """The data of each decision in the stream, in the order in which they were made."""
    card_payments: list[AuthorizationDocument] = field(default_factory=list)
    lines: list[LineDocument] = field(default_factory=list)
    categories: list[CategoryDocument] = field(default_factory=list)
    expired: Counter[str] = field(default_factory=Counter)
    """How often the clock ended something, by the type of output that says so."""
    outputs: list[ConsumerRecord] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


async def find(settings: Settings, tenants: Sequence[str], published: Counter[str], rest: Rest) -> Found:
    """All figures of the books and the streams; `published` is what the producer was acknowledged."""
    found = Found()
    found.figures.published = published
    found.figures.records_unread, found.figures.outputs_unrelayed = rest
    found.outputs = await committed(settings, OUTPUTS)
    found.expired = Counter(event["type"] for event in map(_event_of, found.outputs) if _is_of_the_clock(event))
    decided = [event for event in map(_event_of, found.outputs) if event.get("type") == "authorization.decided.v1"]
    decided.sort(key=_order)
    found.decisions = [event["data"] for event in decided]
    async with reading(settings) as connection:
        for tenant in tenants:
            await _read_tenant(connection, tenant, found)
            await _read_cards(connection, tenant, found)
        found.dead_letters = [letter async for letter in queries.list_dead_letters(connection)]
        found.checks = [check async for check in verify(connection, deep=True)]
    found.figures.dead_letters = Counter(letter["code"] for letter in found.dead_letters)
    found.figures.checks_failed = sum(not check["ok"] for check in found.checks)
    _read_streams(found.outputs, found.figures)
    found.figures.decisions = Counter(map(_answer, found.decisions))
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
    for balance in found.accounts[tenant]:
        if balance["held"]:
            figures.held[tenant, balance["account"], balance["currency"]] = balance["held"]
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


async def _read_cards(connection: AsyncConnection, tenant: str, found: Found) -> None:
    """What stands in the books of a tenant's cards: each payment that was told of in the stream, and each line."""
    named = [
        (event["data"]["provider"], event["data"]["external_id"])
        for event in map(_event_of, found.outputs)
        if event.get("tenantid") == tenant and event["type"].startswith("authorization.")
    ]
    for provider, external_id in dict.fromkeys(named):
        paid = await queries.authorization(connection, tenant, provider, external_id)
        found.card_payments.append(paid)
        found.figures.card_payments[paid["status"]] += 1
    found.categories += [category async for category in queries.list_categories(connection, tenant)]
    owners = [(card["owner_type"], card["owner_ref"]) async for card in queries.list_cards(connection, tenant)]
    for owner_type, owner_ref in owners:
        theirs = queries.list_lines(connection, tenant, owner_type=owner_type, owner_ref=owner_ref)
        async for line in theirs:
            found.lines.append(line)
            if line["expensed_credits"]:
                place = (tenant, line["line_of_credit_id"], line["currency"])
                found.figures.expensed[place] = line["expensed_credits"]


def _answer(decision: dict[str, Any]) -> str:
    """What a processor was told, in a word or two."""
    if decision["decision"] == "declined":
        return f"declined, {decision['reason']}"
    if decision["decided_by"] == "stand_in":
        return "approved by stand_in"
    return "approved in part" if "reason" in decision else "approved"


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
    without_entry = sum(_ends_without_entry(event) for event in map(_event_of, found.outputs))
    of_cards = sum(count for kind, count in figures.entries.items() if kind.startswith("authorization_"))
    ended = with_entry - of_cards + without_entry + figures.rejected.total() + figures.waiting.total()
    return ended + figures.dead_letters.total()


def _ends_without_entry(event: dict[str, Any]) -> bool:
    """Whether an output says how an event ended that made no entry, or that is of a card payment; the clock's don't."""
    match event.get("type"):
        case "command.applied.v1":
            return not _is_of_the_clock(event) and "entry_id" not in event["data"]["result"]
        case "authorization.decided.v1" | "authorization.changed.v1":
            return not _is_of_the_clock(event)
    return False


def _is_of_the_clock(event: dict[str, Any]) -> bool:
    """Whether it says that a hold or a card payment has ended by itself."""
    match event.get("type"):
        case "command.applied.v1":
            return bool(event["data"]["event"]["type"] == EXPIRY_TYPE)
        case "authorization.changed.v1":
            return bool(event["data"]["cause"]["type"] == EXPIRY_TYPE)
    return False


def _order(event: dict[str, Any]) -> tuple[str, int]:
    return event["time"], int(event["id"].rpartition("-")[2])


def _event_of(record: ConsumerRecord) -> dict[str, Any]:
    if any(name == "dlq-code" for name, _ in record.headers):
        return {}
    event: dict[str, Any] = orjson.loads(record.value)
    return event
