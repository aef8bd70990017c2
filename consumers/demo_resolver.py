"""A resolver of one's own, as the settings name it: the categories of card payments from a table that has its gaps."""

from __future__ import annotations

from infra.resolvers.pending import PendingTransaction

NAME = "consumers.demo_resolver:HouseRules"
_HOUSE_RULES = {"5812": "meals", "7995": "gambling"}


class HouseRules:
    """Nobody has made a category `gambling`, and a code that isn't in the table is a KeyError: both decline."""

    async def resolve_expense_categories(self, pending: PendingTransaction) -> frozenset[str] | None:
        return frozenset({_HOUSE_RULES[pending.merchant.mcc]})
