"""The resolver that docs/authorizations.md shows, as it stands there: named in the settings, asked, decided by."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from infra.resolvers.resolving import CreditData, Resolvers
from infra.settings import Settings, read_settings
from tests.fixtures.cards import OWNER
from tests.fixtures.desk import Desk, Envelope, envelope
from tests.integration.test_cards import asked, told

PAGE = (Path(__file__).parents[2] / "docs" / "authorizations.md").read_text(encoding="utf-8")
BUDGET = 2.0
"""Not what is tested here: this machine does other things as well."""


def _settings_of_the_page() -> dict[str, str]:
    (shell,) = re.findall(r"```sh\n(export PYTHONPATH=.*?)```", PAGE, re.DOTALL)
    return dict(re.findall(r"^export (LEDGER_\w+)=(\S+)$", shell, re.MULTILINE))


def _credit() -> list[Envelope]:
    """Two categories without rules, and the lines of a card that are named after it."""
    owned = {"owner_type": "card", "owner_ref": OWNER, "currency": "EUR", "credits_limit": 100}
    codes = ("meals", "weekend")
    return [
        *(envelope("expense_category.create.v1", code=code, name=code) for code in codes),
        *(
            envelope("line_of_credit.create.v1", line_of_credit_id=f"c1/{code}", expense_category=code, **owned)
            for code in codes
        ),
    ]


async def _nothing(_shard: int, _cards: set[tuple[str, str]]) -> CreditData:
    raise AssertionError("both questions have custom answers: nothing is to be read")


async def test_the_resolver_of_the_page_decides_as_it_is_written(
    lone_desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n# (house_rules\.py)\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / code[0]).write_text(code[1], encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    settings = read_settings(_settings_of_the_page())
    diner = {"merchant_id": "m1", "acquirer_id": "a1", "mcc": "5812", "name": "Diner", "country": "FRA"}
    # A Sunday, a Monday, and a grocer's on that Monday.
    payments = [
        asked("sunday", 30, merchant=diner) | {"time": "2026-03-01T12:00:00Z"},
        asked("monday", 30, merchant=diner) | {"time": "2026-03-02T11:00:00Z"},
        asked("grocer", 30) | {"time": "2026-03-02T11:00:00Z"},
    ]
    await lone_desk.apply(*_credit())
    resolvers = Resolvers(
        _nothing,
        categories=settings.expense_category_resolver,
        lines=settings.line_of_credit_resolver,
        budget=BUDGET,
    )
    await resolvers.start()
    try:
        events = [lone_desk.event(payment) for payment in payments]
        await resolvers.resolve(events, await lone_desk.shard())
        await lone_desk.apply_events(events)
    finally:
        await resolvers.close()
    decisions = [
        (said["external_id"], said.get("reason", said["decision"]), said["expense_categories"], said["lines_of_credit"])
        for said in await told(lone_desk, "authorization.decided")
    ]
    assert decisions == [
        ("sunday", "approved", ["meals", "weekend"], _left(meals=70, weekend=70)),
        ("monday", "approved", ["meals"], _left(meals=40)),
        ("grocer", "no_expense_category", [], []),
    ]


def _left(**credits_left: int) -> list[dict[str, object]]:
    return [{"id": f"c1/{code}", "available": amount} for code, amount in credits_left.items()]


def test_the_settings_of_the_page_are_settings() -> None:
    named = _settings_of_the_page()
    assert set(named) == {"LEDGER_EXPENSE_CATEGORY_RESOLVER", "LEDGER_LINE_OF_CREDIT_RESOLVER"}
    assert set(named) <= {f"LEDGER_{field.name.upper()}" for field in fields(Settings)}
