"""Card payments that ask whether they may go ahead, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from domain.accounts import Account
from domain.authorization_states import Act, Happening, next_step
from domain.books import NOT_OPENED, Books
from domain.deciding import Verdict, find_lines, judge
from domain.events import Applied, Command, Event, Outcome, Rejected
from domain.keys import Key, natural_key
from domain.needs import Needs
from domain.posting import refuse_amount, refuse_currency
from domain.reservations import (
    Authorization,
    AuthorizationStatus,
    Resolution,
    authorization_key,
    category_key,
    line_key,
)
from domain.settling import Aim, account_of, changed, decided, kept, settle


@dataclass(slots=True)
class _CardPayment(Command):
    """What a request and an advice have in common; amounts in minor units."""

    provider: str
    external_id: str
    amount: int
    currency: str
    card_id: str
    merchant: Mapping[str, str | None]
    account: str | None = None
    hold_amount: int | None = None
    expires_at: datetime | None = None
    merchant_amount: int | None = None
    merchant_currency: str | None = None
    resolution: Resolution = field(default_factory=Resolution)

    def arrives(self, tenant_id: str) -> Key:
        return authorization_key(tenant_id, self.provider, self.external_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.authorizations.add(authorization_key(tenant_id, self.provider, self.external_id))
        if self.account is not None:
            needs.accounts.add((tenant_id, self.account))
        needs.categories |= {category_key(tenant_id, code) for code in self.resolution.categories or ()}
        needs.lines |= {line_key(tenant_id, line_id) for line_id in (self.resolution.lines or {}).values()}

    def _refusal(self) -> Rejected | None:
        return (
            refuse_amount(self.amount, least=0)
            or (None if self.hold_amount is None else refuse_amount(self.hold_amount, least=0, what="hold_amount"))
            or refuse_currency(self.currency)
        )

    def _found(self, event: Event, books: Books) -> Authorization:
        key = authorization_key(event.tenant_id, self.provider, self.external_id)
        return books.authorizations.get(key) or Authorization(event.tenant_id, self.provider, self.external_id)

    def _approve(
        self, event: Event, books: Books, authorization: Authorization, verdict: Verdict, account: Account | None
    ) -> Applied | Rejected:
        """Expense the lines and hold on the account what was approved."""
        assert verdict.approved_amount is not None
        amount, captured = verdict.approved_amount, authorization.captured
        aim = Aim(
            expensed=max(amount, captured),
            held=max(0, verdict.hold_amount - captured) if account is not None else 0,
            lines=tuple(line.line_of_credit_id for line in verdict.lines),
            account=account,
        )
        authorization_currency, authorization.currency = authorization.currency, self.currency
        applied = settle(event, books, authorization, aim)
        if isinstance(applied, Rejected):
            authorization.currency = authorization_currency
            return applied
        authorization.authorized = amount
        if account is not None:
            if account.account_id is NOT_OPENED:
                # Holding opens no account; the one that an advice names may be new.
                books.open_account(account, 1)
            authorization.account_id = account.account_id
        authorization.expires_at = self.expires_at or event.occurred_at + books.hold_expiry
        return applied

    def _note(self, authorization: Authorization, verdict: Verdict, *, decided_by: str) -> None:
        authorization.currency = self.currency
        authorization.decision = "declined" if verdict.approved_amount is None else "approved"
        authorization.decided_by = decided_by
        authorization.reason, authorization.reasons = verdict.reason, verdict.reasons
        authorization.amount = self.amount
        authorization.approved_amount = verdict.approved_amount or 0
        authorization.categories = tuple(sorted(self.resolution.categories or ()))
        authorization.lines = tuple(line.line_of_credit_id for line in verdict.lines)


@dataclass(slots=True)
class AuthorizationRequested(_CardPayment):
    """May this card payment go ahead? Decided from the books, and set aside."""

    fact = False

    partial_approval: bool = False
    respond_by: datetime | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return authorization_key(tenant_id, self.provider, self.external_id)

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = self._refusal()
        if refusal:
            return refusal
        authorization = self._found(event, books)
        step = next_step(authorization, Happening.REQUESTED)
        if step.act is Act.JOIN:
            return kept(event, books, authorization, changed(authorization, Applied()))
        verdict = judge(self, event, books)
        account = None if self.account is None else books.account(event.tenant_id, self.account)
        applied, hold_amount = Applied(), None
        if verdict.approved_amount is not None:
            outcome = self._approve(event, books, authorization, verdict, account)
            if isinstance(outcome, Rejected):
                return outcome
            applied = outcome
            hold_amount = None if account is None else verdict.hold_amount
        elif account is not None:
            authorization.account_id = account.account_id
        self._note(authorization, verdict, decided_by="ledger")
        authorization.status = _decided_status(verdict)
        return kept(event, books, authorization, decided(books, authorization, applied, account, hold_amount))


@dataclass(slots=True)
class AuthorizationAdvised(_CardPayment):
    """The processor has approved a card payment in our place: it stands, whatever the limits say."""

    fact = True

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "authorization_advice", self.provider, self.external_id)

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = self._refusal()
        if refusal:
            return refusal
        authorization = self._found(event, books)
        step = next_step(authorization, Happening.ADVISED)
        if step.act is Act.JOIN:
            return kept(event, books, authorization, changed(authorization, Applied()))
        lines, _ = find_lines(event.tenant_id, books, self.resolution, self.currency)
        verdict = Verdict(
            self.amount,
            self.amount if self.hold_amount is None else self.hold_amount,
            lines=[line for line in lines if line.currency == self.currency],
        )
        account = None if self.account is None else account_of(event, books, self.account)
        applied = self._approve(event, books, authorization, verdict, account)
        if isinstance(applied, Rejected):
            return applied
        self._note(authorization, verdict, decided_by="stand_in")
        authorization.status = _decided_status(verdict)
        hold_amount = None if account is None else verdict.hold_amount
        return kept(event, books, authorization, decided(books, authorization, applied, account, hold_amount))


def _decided_status(verdict: Verdict) -> AuthorizationStatus:
    approved = verdict.approved_amount is not None
    return AuthorizationStatus.APPROVED if approved else AuthorizationStatus.DECLINED
