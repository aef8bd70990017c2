"""Which card payments are of a category, by its rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra.resolvers.pending import Merchant
from infra.resolvers.rules import matches

DINER = Merchant(merchant_id="m-1", acquirer_id="a-1", mcc="5812", name="Diner", country="FRA")


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"mccs": ["5812"]},
        {"mccs": ["4111", "5811-5814"]},
        {"mccs": ["5812-5812"]},
        {"mccs": ["5812-5999"]},
        {"mccs": ["5000-5812"]},
        {"mccs": ["0000-9999"]},
        {"countries": ["BEL", "FRA"]},
        {"merchants": [{"merchant_id": "m-9", "acquirer_id": "a-1"}, {"merchant_id": "m-1", "acquirer_id": "a-1"}]},
        {"mccs": ["5812"], "countries": ["FRA"], "merchants": [{"merchant_id": "m-1", "acquirer_id": "a-1"}]},
    ],
)
def test_a_payment_that_meets_every_criterion_is_of_the_category(rule: dict[str, Any]) -> None:
    assert matches([rule], DINER)
    assert matches([{"mccs": ["0001"]}, rule], DINER)


@pytest.mark.parametrize(
    "rule",
    [
        {"mccs": ["5811"]},
        {"mccs": ["5813-5999"]},
        {"mccs": ["0000-5811"]},
        {"countries": ["BEL"]},
        {"merchants": [{"merchant_id": "m-1", "acquirer_id": "a-2"}]},
        {"merchants": [{"merchant_id": "m-2", "acquirer_id": "a-1"}]},
        {"mccs": ["5812"], "countries": ["BEL"]},
        {"mccs": ["5811"], "countries": ["FRA"]},
        {"mccs": ["5812"], "merchants": [{"merchant_id": "m-1", "acquirer_id": "a-2"}]},
    ],
)
def test_a_payment_that_fails_one_criterion_is_not(rule: dict[str, Any]) -> None:
    assert not matches([rule], DINER)
    assert not matches([rule, rule], DINER)


def test_a_category_without_rules_is_left_to_custom_code() -> None:
    assert not matches([], DINER)


def test_codes_are_compared_as_numbers_of_four_digits() -> None:
    assert matches([{"mccs": ["0742-0763"]}], replace(DINER, mcc="0743"))
    assert not matches([{"mccs": ["0742-0763"]}], replace(DINER, mcc="7430"))
