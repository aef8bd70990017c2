"""Histories that were drawn once, each through the domain in memory and through the model of the contract."""

from __future__ import annotations

import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.trial import HISTORIES_VARIABLE
from tests.property.test_domain_against_model import agree
from tests.property.test_domain_cards_against_model import agree_on_cards
from tests.property.test_domain_needs import assert_parts_of_a_history_suffice, assert_parts_suffice_for_cards

HISTORIES, CARD_HISTORIES = 15, 30


@cache
def _drawn() -> list[Any]:
    return list(pickle.loads(Path(os.environ[HISTORIES_VARIABLE]).read_bytes()))


@pytest.mark.parametrize("number", range(HISTORIES))
def test_a_history_is_decided_as_the_contract_says(number: int) -> None:
    agree(*_drawn()[number])


@pytest.mark.parametrize("seed", range(CARD_HISTORIES))
def test_a_history_of_cards_is_decided_as_the_contract_says(seed: int) -> None:
    agree_on_cards(seed)


@pytest.mark.parametrize("number", range(HISTORIES // 5))
def test_what_the_events_of_a_history_need_is_all_that_they_look_at(number: int) -> None:
    assert_parts_of_a_history_suffice(_drawn()[number][0])


@pytest.mark.parametrize("seed", range(CARD_HISTORIES // 10))
def test_what_card_payments_need_is_all_that_they_look_at(seed: int) -> None:
    assert_parts_suffice_for_cards(seed)
