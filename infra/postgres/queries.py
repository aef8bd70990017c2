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
from infra.postgres.queries_cards import (
    AuthorizationDocument,
    AuthorizationEvent,
    CardDocument,
    CategoryDocument,
    LineDocument,
    authorization,
    line,
    list_cards,
    list_categories,
    list_lines,
)
from infra.postgres.queries_entries import EntryDocument, EntryFilter, PostingLine, entry, list_entries
from infra.postgres.queries_holds import HoldDocument, hold
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
    "AuthorizationDocument",
    "AuthorizationEvent",
    "BalanceLine",
    "CardDocument",
    "CategoryDocument",
    "DeadLetter",
    "DeadLetterRecord",
    "EntryDocument",
    "EntryFilter",
    "HoldDocument",
    "InputPosition",
    "LineDocument",
    "NotFound",
    "ParkedEvent",
    "PostingLine",
    "Rejection",
    "StatementLine",
    "TrialBalanceLine",
    "TrialBalanceTotal",
    "Unrelayed",
    "authorization",
    "balance",
    "dead_letter",
    "entry",
    "held_keys",
    "hold",
    "input_positions",
    "line",
    "list_cards",
    "list_categories",
    "list_dead_letters",
    "list_entries",
    "list_lines",
    "list_parked",
    "list_rejections",
    "natural",
    "parked_event",
    "rejection",
    "statement",
    "trial_balance",
    "unrelayed",
]
