"""The rules of a category: which card payments are of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.resolvers.pending import Merchant

Rule = Mapping[str, Any]
"""`mccs`, `countries` and `merchants`, as they are on the wire, those that were given."""


def matches(rules: Sequence[Rule], merchant: Merchant) -> bool:
    """Whether the merchant meets any of these rules; no rule at all is met by none, an empty one by each."""
    return any(_meets(rule, merchant) for rule in rules)


def _meets(rule: Rule, merchant: Merchant) -> bool:
    """Whether each criterion that the rule has is met."""
    if (mccs := rule.get("mccs")) is not None and not any(_is_in(merchant.mcc, each) for each in mccs):
        return False
    if (countries := rule.get("countries")) is not None and merchant.country not in countries:
        return False
    merchants = rule.get("merchants")
    return merchants is None or any(
        (each["merchant_id"], each["acquirer_id"]) == (merchant.merchant_id, merchant.acquirer_id) for each in merchants
    )


def _is_in(mcc: str, codes: str) -> bool:
    # Four digits each, so the order of texts is that of numbers.
    first, _, last = codes.partition("-")
    return first <= mcc <= (last or first)
