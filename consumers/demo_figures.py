"""The figures of the demo, once as they must be and once as they are found; and what is wrong where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from domain.money import in_major_units

Place = tuple[str, str, str]
"""A tenant, an account and a currency."""


@dataclass(slots=True)
class Figures:
    """Amounts are signed, debit positive, in minor units. Keys of counters: a label, or a tenant and a label."""

    published: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    breaches: Counter[str] = field(default_factory=Counter)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting: Counter[tuple[str, str]] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    card_payments: Counter[str] = field(default_factory=Counter)
    expensed: dict[Place, int] = field(default_factory=dict)
    """By line of credit in place of an account."""
    held: dict[Place, int] = field(default_factory=dict)
    balances: dict[Place, int] = field(default_factory=dict)
    streamed_balances: dict[Place, int] = field(default_factory=dict)
    trial_balance: dict[tuple[str, str], int] = field(default_factory=dict)
    outputs: Counter[str] = field(default_factory=Counter)
    outputs_missing: int = 0
    outputs_doubled: int = 0
    records_unread: int = 0
    outputs_unrelayed: int = 0
    checks_failed: int = 0


_WORDS = {
    "published": "records on the input topics",
    "duplicates": "duplicates left out",
    "entries": "entries of kind",
    "breaches": "entries that say they broke",
    "rejected": "rejections",
    "waiting": "parked events that wait for",
    "dead_letters": "dead letters",
    "decisions": "decisions in the stream:",
    "card_payments": "card payments that are",
    "expensed": "spent of the line of credit of",
    "held": "held of the account of",
    "balances": "balance in the books of",
    "streamed_balances": "last balance in the stream of",
    "trial_balance": "trial balance of",
    "outputs": "outputs that a subscriber sees of type",
    "outputs_missing": "outputs missing in the streams",
    "outputs_doubled": "outputs twice in the streams",
    "records_unread": "input records not read",
    "outputs_unrelayed": "outputs not published",
    "checks_failed": "checks of verify that failed",
}


def differences(*, expected: Figures, found: Figures) -> list[str]:
    """A line for each figure that isn't what it must be; none if all are right."""
    lines: list[str] = []
    for each in fields(Figures):
        wanted, got = getattr(expected, each.name), getattr(found, each.name)
        words = _WORDS[each.name]
        if isinstance(wanted, Mapping):
            keys = [*wanted, *(key for key in got if key not in wanted)]
            lines += [
                f"{words} {_named(key)}: {_told(key, got.get(key, 0))}, but it must be {_told(key, wanted.get(key, 0))}"
                for key in keys
                if wanted.get(key, 0) != got.get(key, 0)
            ]
        elif wanted != got:
            lines.append(f"{words}: {got:,}, but it must be {wanted:,}")
    return lines


def _named(key: Any) -> str:
    return key if isinstance(key, str) else " · ".join(key[:2])


def _told(key: Any, value: int) -> str:
    return in_major_units(value, key[2]) if isinstance(key, tuple) and len(key) == 3 else f"{value:,}"
