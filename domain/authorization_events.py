"""What becomes of card payments: confirmed, adjusted, captured, refunded, released. Facts, all of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain.accounts import PLATFORM_CASH, Account
from domain.authorization_states import Act, Happening, State, Step, next_step, status_of
from domain.books import Books
from domain.events import Applied, Command, Event, Outcome, Parked, Rejected
from domain.keys import Key, natural_key
from domain.needs import Needs
from domain.posting import refuse_amount, refuse_currency
from domain.rejections import RejectionCode
from domain.reservations import Authorization, AuthorizationStatus, authorization_key
from domain.settling import Aim, account_of, changed, give_back_all, kept, settle


@dataclass(slots=True)
class _Later(Command):
    """Something that happened to an authorization after it was asked for."""

    fact = True

    provider: str
    external_id: str
    event_id: str

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "authorization", self.provider, self.external_id, self.event_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.authorizations.add(authorization_key(tenant_id, self.provider, self.external_id))

    def _found(self, event: Event, books: Books) -> Authorization:
        key = authorization_key(event.tenant_id, self.provider, self.external_id)
        return books.authorizations.get(key) or Authorization(event.tenant_id, self.provider, self.external_id)

    def _next(self, event: Event, books: Books, what: Happening) -> Step | Parked:
        key = authorization_key(event.tenant_id, self.provider, self.external_id)
        step = next_step(books.authorizations.get(key), what)
        if step.act is Act.PARK:
            waits_for = f"authorization {self.external_id} of {self.provider}"
            return Parked(key, waits_for, RejectionCode.AUTHORIZATION_NOT_FOUND)
        return step


@dataclass(slots=True)
class AuthorizationConfirmed(_Later):
    """The processor says that the payment exists; this may come before or after the decision."""

    def decide(self, event: Event, books: Books) -> Outcome:
        authorization = self._found(event, books)
        authorization.confirmed = True
        return kept(event, books, authorization, changed(authorization, Applied()))


@dataclass(slots=True)
class AuthorizationAdjusted(_Later):
    """The authorized total is another; one older than the last applied one changes nothing."""

    amount: int
    expires_at: datetime | None = None

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = refuse_amount(self.amount, least=0)
        if refusal:
            return refusal
        step = self._next(event, books, Happening.ADJUSTED)
        if isinstance(step, Parked):
            return step
        authorization = self._found(event, books)
        if step.act is Act.NOTHING:
            return kept(event, books, authorization, changed(authorization, Applied()))
        if authorization.adjusted_at is not None and event.occurred_at < authorization.adjusted_at:
            return kept(event, books, authorization, changed(authorization, Applied(), superseded=True))
        return self._move(event, books, authorization, step)

    def _move(self, event: Event, books: Books, authorization: Authorization, step: Step) -> Applied | Rejected:
        difference = self.amount - authorization.authorized
        expensed = max(self.amount, authorization.captured) - authorization.given_back
        held = 0 if authorization.account_id is None else max(0, authorization.held + difference)
        applied = settle(event, books, authorization, Aim(expensed=max(0, expensed), held=held))
        if isinstance(applied, Rejected):
            return applied
        if authorization.status is AuthorizationStatus.RELEASED and self.amount > authorization.captured:
            # It lives again, and must not end at once for an end that is over.
            authorization.status = status_of(step.to)
            authorization.expires_at = event.occurred_at + books.hold_expiry
        authorization.authorized = self.amount
        authorization.adjusted_at = event.occurred_at
        authorization.expires_at = self.expires_at or authorization.expires_at
        return kept(event, books, authorization, changed(authorization, applied))


@dataclass(slots=True)
class AuthorizationCaptured(_Later):
    """The money of a card payment, or a part of it, was taken."""

    amount: int
    final: bool = True
    force_post: bool = False
    account: str | None = None
    currency: str | None = None

    def arrives(self, tenant_id: str) -> Key | None:
        # What nobody has asked for comes into being by being posted.
        return authorization_key(tenant_id, self.provider, self.external_id) if self.force_post else None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.authorizations.add(authorization_key(tenant_id, self.provider, self.external_id))
        needs.accounts.add((tenant_id, PLATFORM_CASH))
        if self.account is not None:
            needs.accounts.add((tenant_id, self.account))

    @property
    def _happening(self) -> Happening:
        if self.force_post:
            return Happening.FORCE_POSTED
        return Happening.CAPTURED_FINALLY if self.final else Happening.CAPTURED

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = refuse_amount(self.amount) or (None if self.currency is None else refuse_currency(self.currency))
        if refusal:
            return refusal
        step = self._next(event, books, self._happening)
        if isinstance(step, Parked):
            return step
        authorization = self._found(event, books)
        refusal = self._refusal(authorization)
        if refusal:
            return refusal
        account = self._account(event, books, authorization)
        aim = self._aim(authorization, step)
        aim.payer, aim.posted, aim.kind = account, self.amount, "authorization_captured"
        aim.late = step.act is Act.LATE_CAPTURE
        before, authorization.currency = authorization.currency, authorization.currency or self.currency
        applied = settle(event, books, authorization, aim)
        if isinstance(applied, Rejected):
            authorization.currency = before
            return applied
        self._note(authorization, step, account)
        return kept(event, books, authorization, changed(authorization, applied))

    def _refusal(self, authorization: Authorization) -> Rejected | None:
        known = authorization.currency
        if known is not None and self.currency is not None and known != self.currency:
            return Rejected(RejectionCode.CURRENCY_MISMATCH, f"the authorization is in {known}, not {self.currency}")
        return refuse_amount(authorization.captured + self.amount, what="what is captured")

    def _account(self, event: Event, books: Books, authorization: Authorization) -> Account | None:
        if self.account is not None:
            return account_of(event, books, self.account)
        return None if authorization.account_id is None else books.accounts_by_id[authorization.account_id]

    def _aim(self, authorization: Authorization, step: Step) -> Aim:
        if step.act is Act.POST:
            return Aim(expensed=authorization.expensed, held=authorization.held)
        captured = authorization.captured + self.amount
        goes_on = step.to is State.APPROVED
        left = max(0, authorization.authorized - captured) if goes_on else 0
        held = max(0, authorization.held - self.amount) if goes_on else 0
        return Aim(expensed=max(0, captured + left - authorization.given_back), held=held)

    def _note(self, authorization: Authorization, step: Step, account: Account | None) -> None:
        authorization.captured += self.amount
        authorization.status = status_of(step.to)
        if authorization.account_id is None and account is not None:
            authorization.account_id = account.account_id


@dataclass(slots=True)
class AuthorizationRefunded(_Later):
    """Money of a card payment came back; the lines get back what was expensed, at most."""

    amount: int

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.authorizations.add(authorization_key(tenant_id, self.provider, self.external_id))
        needs.accounts.add((tenant_id, PLATFORM_CASH))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = refuse_amount(self.amount)
        if refusal:
            return refusal
        step = self._next(event, books, Happening.REFUNDED)
        if isinstance(step, Parked):
            return step
        authorization = self._found(event, books)
        refusal = refuse_amount(authorization.refunded + self.amount, what="what is refunded")
        if refusal:
            return refusal
        back = min(self.amount, authorization.expensed)
        account_id = authorization.account_id
        aim = Aim(expensed=authorization.expensed - back, held=authorization.held)
        aim.payer = None if account_id is None else books.accounts_by_id[account_id]
        aim.posted, aim.kind = -self.amount, "authorization_refunded"
        applied = settle(event, books, authorization, aim)
        if isinstance(applied, Rejected):
            return applied
        authorization.refunded += self.amount
        authorization.given_back += back
        return kept(event, books, authorization, changed(authorization, applied))


@dataclass(slots=True)
class AuthorizationReleased(_Later):
    """What was authorized will not be taken, or not all of it."""

    reason: str
    amount: int | None = None

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = None if self.amount is None else refuse_amount(self.amount)
        if refusal:
            return refusal
        step = self._next(event, books, Happening.RELEASED)
        if isinstance(step, Parked):
            return step
        authorization = self._found(event, books)
        left = authorization.left
        if step.act is Act.NOTHING:
            return kept(event, books, authorization, changed(authorization, Applied()))
        if self.amount is None or self.amount >= left:
            applied = give_back_all(event, books, authorization)
            last = authorization.adjusted_at
            # An adjustment from before must not bring it back.
            authorization.adjusted_at = event.occurred_at if last is None else max(last, event.occurred_at)
            return applied
        aim = Aim(
            expensed=max(0, authorization.authorized - self.amount - authorization.given_back),
            held=max(0, authorization.held - self.amount),
        )
        applied_or_not = settle(event, books, authorization, aim)
        assert isinstance(applied_or_not, Applied)
        authorization.authorized -= self.amount
        return kept(event, books, authorization, changed(authorization, applied_or_not))
