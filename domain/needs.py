"""What a batch of commands must see before it can be decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from domain.ids import AccountId
from domain.keys import Key


@dataclass(slots=True)
class Needs:
    """Names and keys to load, collected over a batch, so that loading takes as many queries whatever its size."""

    accounts: set[tuple[str, str]] = field(default_factory=set)
    """(tenant, name)"""
    ancestors_of: set[tuple[str, str]] = field(default_factory=set)
    """Accounts whose parents, and theirs, are looked at for cycles."""
    account_ids: set[AccountId] = field(default_factory=set)
    entries: set[UUID] = field(default_factory=set)
    payments: set[Key] = field(default_factory=set)
    refunds: set[Key] = field(default_factory=set)
    transfers: set[Key] = field(default_factory=set)
    payouts: set[Key] = field(default_factory=set)
    disputes: set[Key] = field(default_factory=set)
    holds: set[Key] = field(default_factory=set)
    authorizations: set[Key] = field(default_factory=set)
    lines: set[Key] = field(default_factory=set)
    line_owners: set[Key] = field(default_factory=set)
    """Owner and category: the line that the owner has for it."""
    categories: set[Key] = field(default_factory=set)
    cards: set[Key] = field(default_factory=set)
    arrivals: set[Key] = field(default_factory=set)
    """Things that the batch may make: whoever is parked for one of them comes along."""
    tenants: set[str] = field(default_factory=set)
