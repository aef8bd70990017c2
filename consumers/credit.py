"""The part of `ledger.commands` that card payments are judged by: categories, lines of credit, cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from domain.credit import (
    CardAssign,
    CardUnassign,
    ExpenseCategoryCreate,
    LineOfCreditCreate,
    LineOfCreditReset,
    LineOfCreditSetLimit,
    LineOfCreditTerminate,
)
from domain.events import Command
from schemas import canonical
from schemas.credit import (
    CardAssignV1,
    CardUnassignV1,
    ExpenseCategoryCreateV1,
    LineOfCreditCreateV1,
    LineOfCreditResetV1,
    LineOfCreditSetLimitV1,
    LineOfCreditTerminateV1,
)


def expense_category_create(data: ExpenseCategoryCreateV1) -> ExpenseCategoryCreate:
    rules = [rule.model_dump(exclude_none=True) for rule in data.match]
    return ExpenseCategoryCreate(
        code=data.code,
        name=data.name,
        description=data.description,
        reference=data.reference,
        match=canonical.dump(rules),
    )


def line_of_credit_create(data: LineOfCreditCreateV1) -> LineOfCreditCreate:
    return LineOfCreditCreate(
        line_of_credit_id=data.line_of_credit_id,
        owner_type=data.owner_type,
        owner_ref=data.owner_ref,
        expense_category=data.expense_category,
        currency=data.currency,
        credits_limit=data.credits_limit,
        expensed_credits=data.expensed_credits,
    )


def line_of_credit_set_limit(data: LineOfCreditSetLimitV1) -> LineOfCreditSetLimit:
    return LineOfCreditSetLimit(line_of_credit_id=data.line_of_credit_id, credits_limit=data.credits_limit)


def line_of_credit_reset(data: LineOfCreditResetV1) -> LineOfCreditReset:
    return LineOfCreditReset(
        line_of_credit_id=data.line_of_credit_id,
        credits_limit=data.credits_limit,
        expensed_credits=data.expensed_credits,
    )


def line_of_credit_terminate(data: LineOfCreditTerminateV1) -> LineOfCreditTerminate:
    return LineOfCreditTerminate(line_of_credit_id=data.line_of_credit_id)


def card_assign(data: CardAssignV1) -> CardAssign:
    return CardAssign(card_id=data.card_id, owner_type=data.owner_type, owner_ref=data.owner_ref)


def card_unassign(data: CardUnassignV1) -> CardUnassign:
    return CardUnassign(card_id=data.card_id, owner_type=data.owner_type, owner_ref=data.owner_ref)


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {
    "expense_category.create.v1": expense_category_create,
    "line_of_credit.create.v1": line_of_credit_create,
    "line_of_credit.set_limit.v1": line_of_credit_set_limit,
    "line_of_credit.reset.v1": line_of_credit_reset,
    "line_of_credit.terminate.v1": line_of_credit_terminate,
    "card.assign.v1": card_assign,
    "card.unassign.v1": card_unassign,
}
