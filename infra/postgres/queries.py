"""All reads of the ledger, as typed async functions over one connection of `infra.postgres.reading`."""

from __future__ import annotations

from infra.postgres.queries_balances import (
    BalanceLine,
    TrialBalanceLine,
    TrialBalanceTotal,
    balance,
    natural,
    trial_balance,
)
from infra.postgres.queries_entries import EntryDocument, EntryFilter, PostingLine, entry, list_entries
from infra.postgres.queries_outcomes import (
    DeadLetter,
    DeadLetterRecord,
    InputPosition,
    ParkedEvent,
    Rejection,
    Unrelayed,
    dead_letter,
    held_keys,
    input_positions,
    list_dead_letters,
    list_parked,
    list_rejections,
    parked_event,
    rejection,
    unrelayed,
)
from infra.postgres.queries_places import NotFound
from infra.postgres.queries_statements import StatementLine, statement

__all__ = [
    "BalanceLine",
    "DeadLetter",
    "DeadLetterRecord",
    "EntryDocument",
    "EntryFilter",
    "InputPosition",
    "NotFound",
    "ParkedEvent",
    "PostingLine",
    "Rejection",
    "StatementLine",
    "TrialBalanceLine",
    "TrialBalanceTotal",
    "Unrelayed",
    "balance",
    "dead_letter",
    "entry",
    "held_keys",
    "input_positions",
    "list_dead_letters",
    "list_entries",
    "list_parked",
    "list_rejections",
    "natural",
    "parked_event",
    "rejection",
    "statement",
    "trial_balance",
    "unrelayed",
]
