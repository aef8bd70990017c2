"""Requests about expense categories, lines of credit, and whose cards are whose."""

from __future__ import annotations

from dataclasses import dataclass

from domain.books import Books
from domain.events import Applied, Command, Event, Outcome, Rejected
from domain.keys import Key
from domain.needs import Needs
from domain.posting import refuse_amount, refuse_currency
from domain.rejections import RejectionCode
from domain.reservations import (
    Card,
    ExpenseCategory,
    LineOfCredit,
    card_key,
    category_key,
    line_key,
    line_owner_key,
)


@dataclass(slots=True)
class ExpenseCategoryCreate(Command):
    """Make a category of expenses; `match` is the JSON array of its rules."""

    fact = False
    taken = RejectionCode.EXPENSE_CATEGORY_EXISTS

    code: str
    name: str
    description: str | None = None
    reference: str | None = None
    match: bytes = b"[]"

    def natural_key(self, tenant_id: str) -> Key:
        return category_key(tenant_id, self.code)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        pass

    def decide(self, event: Event, books: Books) -> Outcome:
        key = category_key(event.tenant_id, self.code)
        books.categories[key] = books.new_categories[key] = ExpenseCategory(
            event.tenant_id, self.code, self.name, self.description, self.reference, self.match
        )
        return Applied(result={"code": self.code})


@dataclass(slots=True)
class LineOfCreditCreate(Command):
    """Give an owner credits for a category of expenses, in minor units."""

    fact = False
    taken = RejectionCode.LINE_OF_CREDIT_EXISTS

    line_of_credit_id: str
    owner_type: str
    owner_ref: str
    expense_category: str
    currency: str
    credits_limit: int = 0
    expensed_credits: int = 0

    def natural_key(self, tenant_id: str) -> Key:
        return line_key(tenant_id, self.line_of_credit_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.line_owners.add(self._owner(tenant_id))
        needs.categories.add(category_key(tenant_id, self.expense_category))

    def _owner(self, tenant_id: str) -> Key:
        return line_owner_key(tenant_id, self.owner_type, self.owner_ref, self.expense_category)

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = (
            refuse_amount(self.credits_limit, least=0, what="credits_limit")
            or refuse_amount(self.expensed_credits, least=0, what="expensed_credits")
            or refuse_currency(self.currency)
        )
        if refusal:
            return refusal
        if category_key(event.tenant_id, self.expense_category) not in books.categories:
            return Rejected(RejectionCode.EXPENSE_CATEGORY_NOT_FOUND, f"there is no category {self.expense_category}")
        owner = self._owner(event.tenant_id)
        theirs = books.line_owners.get(owner)
        if theirs is not None and not theirs.terminated:
            return Rejected(
                RejectionCode.LINE_OF_CREDIT_EXISTS,
                f"the owner has the line of credit {theirs.line_of_credit_id} for {self.expense_category} already",
            )
        line = LineOfCredit(
            event.tenant_id,
            self.line_of_credit_id,
            self.owner_type,
            self.owner_ref.lower(),
            self.expense_category,
            self.currency,
            self.credits_limit,
            self.expensed_credits,
        )
        books.line_owners[owner] = line
        return _kept(books, line)


@dataclass(slots=True)
class LineOfCreditSetLimit(Command):
    """Change how much may be spent."""

    fact = False

    line_of_credit_id: str
    credits_limit: int

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.lines.add(line_key(tenant_id, self.line_of_credit_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = refuse_amount(self.credits_limit, least=0, what="credits_limit")
        if refusal:
            return refusal
        line = _line(event, books, self.line_of_credit_id)
        if isinstance(line, Rejected):
            return line
        line.credits_limit = self.credits_limit
        return _kept(books, line)


@dataclass(slots=True)
class LineOfCreditReset(Command):
    """Begin anew: with this limit, and this much of it spent."""

    fact = False

    line_of_credit_id: str
    credits_limit: int
    expensed_credits: int

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.lines.add(line_key(tenant_id, self.line_of_credit_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = refuse_amount(self.credits_limit, least=0, what="credits_limit") or refuse_amount(
            self.expensed_credits, least=0, what="expensed_credits"
        )
        if refusal:
            return refusal
        line = _line(event, books, self.line_of_credit_id)
        if isinstance(line, Rejected):
            return line
        line.credits_limit = self.credits_limit
        line.expensed_credits = self.expensed_credits
        return _kept(books, line)


@dataclass(slots=True)
class LineOfCreditTerminate(Command):
    """End a line of credit for good; ending it again changes nothing."""

    fact = False

    line_of_credit_id: str

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.lines.add(line_key(tenant_id, self.line_of_credit_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        line = _line(event, books, self.line_of_credit_id, terminated=True)
        if isinstance(line, Rejected):
            return line
        line.terminated = True
        return _kept(books, line)


@dataclass(slots=True)
class CardAssign(Command):
    """Say whose card it is; who had it before has it no more."""

    fact = False

    card_id: str
    owner_type: str
    owner_ref: str

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.cards.add(card_key(tenant_id, self.card_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        key = card_key(event.tenant_id, self.card_id)
        books.cards.put(key, Card(event.tenant_id, self.card_id, self.owner_type, self.owner_ref.lower()))
        return Applied(result={"card_id": self.card_id})


@dataclass(slots=True)
class CardUnassign(Command):
    """Say that a card is not this owner's any more; if it isn't, nothing changes."""

    fact = False

    card_id: str
    owner_type: str
    owner_ref: str

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.cards.add(card_key(tenant_id, self.card_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        key = card_key(event.tenant_id, self.card_id)
        card = books.cards.get(key)
        if card is not None and (card.owner_type, card.owner_ref) == (self.owner_type, self.owner_ref.lower()):
            books.cards.put(key, Card(event.tenant_id, self.card_id, None, None))
        return Applied(result={"card_id": self.card_id})


def _line(event: Event, books: Books, line_of_credit_id: str, *, terminated: bool = False) -> LineOfCredit | Rejected:
    line = books.lines.get(line_key(event.tenant_id, line_of_credit_id))
    if line is None or (line.terminated and not terminated):
        return Rejected(RejectionCode.LINE_OF_CREDIT_NOT_FOUND, f"there is no line of credit {line_of_credit_id}")
    return line


def _kept(books: Books, line: LineOfCredit) -> Applied:
    books.keep_line(line_key(line.tenant_id, line.line_of_credit_id), line)
    return Applied(result={"line_of_credit_id": line.line_of_credit_id})
