"""A tenant's tables against its book of the model, once all of its events were heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.model import Book

_BALANCES = """
    SELECT name, b.currency, posted, held, version
    FROM accounts a
    JOIN balances b USING (shard, account_id)
    WHERE a.shard = $1 AND tenant_id = $2
"""
_HOLDS = "SELECT hold_id, status, held, captured FROM holds WHERE shard = $1 AND tenant_id = $2"
_LINES = """
    SELECT line_of_credit_id, credits_limit, expensed_credits, terminated
    FROM lines_of_credit
    WHERE shard = $1 AND tenant_id = $2
"""
_PAYMENTS = """
    SELECT provider, external_id, status, confirmed, authorized, captured, refunded, given_back, expensed, held
    FROM authorizations
    WHERE shard = $1 AND tenant_id = $2
"""
_PAID = ("status", "confirmed", "authorized", "captured", "refunded", "back", "expensed", "held")
_SHOWN = 3


async def parked_of(connection: Any, shard: int) -> dict[str, list[str]]:
    """By tenant, the ids of the events that wait."""
    rows = await connection.fetch(
        "SELECT tenant_id, event_id FROM parked JOIN events USING (shard, seq) WHERE shard = $1", shard
    )
    found: dict[str, list[str]] = {}
    for tenant, event_id in rows:
        found.setdefault(tenant, []).append(event_id)
    return found


async def differences(connection: Any, shard: int, tenant: str, book: Book, parked: list[str]) -> list[str]:
    """In what the tables of a tenant aren't as the model has them."""

    async def rows(query: str, names: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        return {tuple(row)[:names]: tuple(row)[names:] for row in await connection.fetch(query, shard, tenant)}

    wanted: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {
        "balances": {
            place: (book.posted[place], book.held[place], version)
            for place, version in book.versions.items()
            if version
        },
        "holds": {
            thing[2:]: (hold["status"], hold["held"], hold["captured"])
            for thing, hold in book.things.items()
            if thing[0] == "hold"
        },
        "lines of credit": {
            (name,): (line["limit"], line["expensed"], line["terminated"]) for name, line in book.lines.items()
        },
        "card payments": {place: tuple(paid[name] for name in _PAID) for place, paid in book.payments_by_card.items()},
    }
    found = {
        "balances": await rows(_BALANCES, 2),
        "holds": await rows(_HOLDS, 1),
        "lines of credit": await rows(_LINES, 1),
        "card payments": await rows(_PAYMENTS, 2),
    }
    faults = [
        f"{tenant}: {what} differ from the model's (found, wanted): {_few(found[what], wanted[what])}"
        for what in wanted
        if found[what] != wanted[what]
    ]
    if sorted(parked) != sorted(event["id"] for queue in book.waiting.values() for event in queue):
        faults.append(f"{tenant}: what is parked isn't what the model has waiting")
    return faults


def _few(found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> str:
    differing = [place for place in found.keys() | wanted.keys() if found.get(place) != wanted.get(place)]
    return str([(place, found.get(place), wanted.get(place)) for place in sorted(differing)[:_SHOWN]])
