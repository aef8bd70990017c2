"""What the default resolvers go by: the categories of a tenant, and the lines of credit of a card's owner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import asyncpg
import jiter

from infra.postgres.errors import ours
from infra.resolvers.resolving import CreditData, ReadCredit
from infra.resolvers.rules import Rule

_RULES_KEPT = 10_000

# All of a batch in one. Categories come with no card; LATERAL with OFFSET 0, so that each is looked up by
# its index, whatever the planner believes of tables that were never analyzed.
CREDIT = """
    SELECT asked.tenant_id, asked.card_id, theirs.expense_category AS code, theirs.line_of_credit_id AS found
    FROM unnest({tenants}::text[], {cards}::text[]) AS asked (tenant_id, card_id)
    CROSS JOIN LATERAL (
        SELECT owner_type, owner_ref
        FROM cards
        WHERE shard = $1
          AND tenant_id = asked.tenant_id
          AND card_id = asked.card_id
        OFFSET 0
    ) AS owner
    CROSS JOIN LATERAL (
        SELECT expense_category, line_of_credit_id
        FROM lines_of_credit
        WHERE shard = $1
          AND tenant_id = asked.tenant_id
          AND owner_type = owner.owner_type
          AND owner_ref = owner.owner_ref
          AND NOT terminated
        OFFSET 0
    ) AS theirs
  UNION ALL
    SELECT asked.tenant_id, NULL, known.code, known.match
    FROM (SELECT DISTINCT tenant_id FROM unnest({tenants}::text[]) AS named (tenant_id)) AS asked
    CROSS JOIN LATERAL (
        SELECT code, match
        FROM expense_categories
        WHERE shard = $1
          AND tenant_id = asked.tenant_id
        OFFSET 0
    ) AS known
"""
"""Rows of tenant, card, category and line; those of a tenant's categories have no card, and rules for a line."""
_ALONE = CREDIT.format(tenants="$2", cards="$3")


def credit_reader(pool: asyncpg.Pool) -> ReadCredit:
    """A reader of what stands in the books now, committed."""

    async def read(shard: int, asked: set[tuple[str, str]]) -> CreditData:
        tenants, cards = zip(*asked, strict=True)
        try:
            rows = await pool.fetch(_ALONE, shard, list(tenants), list(cards))
        except Exception as error:
            raise ours(error) from error
        return credit_of(rows)

    return read


def credit_of(rows: Iterable[Any]) -> CreditData:
    """What rows of `CREDIT` say."""
    categories: defaultdict[str, list[tuple[str, list[Rule]]]] = defaultdict(list)
    lines: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for tenant_id, card_id, code, found in rows:
        if card_id is None:
            categories[tenant_id].append((code, _rules(found)))
        else:
            lines[tenant_id, card_id][code] = found
    return CreditData(categories, lines)


@lru_cache(_RULES_KEPT)
def _rules(match: str) -> list[Rule]:
    """The rules of a category; parsed once, since a category never changes."""
    rules: list[Rule] = jiter.from_json(match.encode())
    return rules
