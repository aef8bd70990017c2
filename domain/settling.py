"""Moving lines of credit, what is held and what is posted of an authorization, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

from domain.accounts import PLATFORM_CASH, Account, AccountType, reserved_type
from domain.books import Books
from domain.events import AccountState, Applied, AuthorizationChange, Decision, Event, Rejected
from domain.money import AMOUNT_MAX
from domain.posting import Draft, Leg, move_held, net_changes, post_fact, refuse_overflow
from domain.rejections import RejectionCode
from domain.reservations import Authorization, AuthorizationStatus, LineOfCredit, authorization_key, line_key


@dataclass(slots=True)
class Aim:
    """What shall be: expensed on each line and held, afterwards; `posted` leaves the payer's account, now."""

    expensed: int
    held: int
    lines: tuple[str, ...] | None = None
    """In place of those that the authorization has."""
    account: Account | None = None
    """Where it is held, in place of the authorization's."""
    payer: Account | None = None
    posted: int = 0
    kind: str = ""
    late: bool = False


def settle(event: Event, books: Books, authorization: Authorization, aim: Aim) -> Applied | Rejected:
    """Move all that stands behind an authorization, or refuse what can't be counted and move nothing."""
    line_ids = authorization.lines if aim.lines is None else aim.lines
    lines = [books.lines[line_key(event.tenant_id, line_id)] for line_id in line_ids]
    expensed = aim.expensed if lines else 0
    # Before it is approved it has lines that were only looked at.
    difference = expensed - authorization.expensed
    for line in lines:
        if line.expensed_credits + difference > AMOUNT_MAX:
            return Rejected(
                RejectionCode.AMOUNT_OUT_OF_RANGE, f"line of credit {line.line_of_credit_id} can't count so much"
            )
    applied = _move(event, books, authorization, aim)
    if isinstance(applied, Rejected):
        return applied
    _expense(books, lines, difference)
    authorization.expensed = expensed
    authorization.held = aim.held
    applied.authorization = (authorization.provider, authorization.external_id)
    return applied


def _move(event: Event, books: Books, authorization: Authorization, aim: Aim) -> Applied | Rejected:
    currency = authorization.currency
    assert currency is not None, "nothing was asked for, and nothing posted"
    account = aim.account
    if account is None and authorization.account_id is not None:
        account = books.accounts_by_id[authorization.account_id]
    held: list[Leg] = [] if account is None else [(account, currency, aim.held - authorization.held)]
    if aim.payer is None:
        changes = net_changes((), held)
        return refuse_overflow(changes) or Applied(changes=move_held(books, changes))
    cash = books.account_for(event.tenant_id, PLATFORM_CASH, AccountType.ASSET)
    legs: list[Leg] = [(aim.payer, currency, aim.posted), (cash, currency, -aim.posted)]
    # The debit first.
    legs.sort(key=itemgetter(2), reverse=True)
    return post_fact(books, event, Draft(aim.kind, {}), legs, held=held, late=aim.late)


def _expense(books: Books, lines: list[LineOfCredit], difference: int) -> None:
    if not difference:
        return
    for line in lines:
        # A line that was reset has nothing left of what was expensed before.
        line.expensed_credits = max(0, line.expensed_credits + difference)
        books.keep_line(line_key(line.tenant_id, line.line_of_credit_id), line)


def give_back_all(event: Event, books: Books, authorization: Authorization) -> Applied:
    """Release all that is not captured."""
    aim = Aim(expensed=max(0, authorization.captured - authorization.given_back), held=0)
    applied = settle(event, books, authorization, aim)
    assert isinstance(applied, Applied)
    authorization.authorized = authorization.captured
    authorization.status = AuthorizationStatus.RELEASED
    return kept(event, books, authorization, changed(authorization, applied))


def account_of(event: Event, books: Books, name: str) -> Account:
    """The account that a fact names; made if it isn't there, as one that card payments are made from."""
    return books.account_for(event.tenant_id, name, reserved_type(name) or AccountType.LIABILITY)


def kept(event: Event, books: Books, authorization: Authorization, applied: Applied) -> Applied:
    """Keep an authorization, and that this event was about it."""
    key = authorization_key(event.tenant_id, authorization.provider, authorization.external_id)
    books.authorizations.put(key, authorization)
    books.authorization_events.append((key, books.next_seq))
    return applied


def changed(authorization: Authorization, applied: Applied, *, superseded: bool = False) -> Applied:
    """Say how an authorization stands after a later event."""
    applied.changed = AuthorizationChange(
        authorization.provider,
        authorization.external_id,
        str(authorization.status),
        authorization.confirmed,
        authorization.authorized,
        authorization.captured,
        authorization.refunded,
        superseded,
    )
    return applied


def decided(
    books: Books,
    authorization: Authorization,
    applied: Applied,
    account: Account | None,
    hold_amount: int | None,
) -> Applied:
    """Say what was decided, and how lines and account stand after it."""
    lines = [books.lines[line_key(authorization.tenant_id, line_id)] for line_id in authorization.lines]
    assert authorization.decision is not None
    assert authorization.decided_by is not None
    assert authorization.currency is not None
    applied.decision = Decision(
        authorization.provider,
        authorization.external_id,
        authorization.decision,
        authorization.decided_by,
        authorization.reason,
        authorization.reasons,
        authorization.amount,
        authorization.approved_amount,
        hold_amount,
        authorization.currency,
        authorization.categories,
        [(line.line_of_credit_id, line.available) for line in lines],
        None if account is None else _state(account, authorization.currency),
    )
    return applied


def _state(account: Account, currency: str) -> AccountState:
    balance = account.balances.get(currency)
    if balance is None:
        return AccountState(account.name, 0, 0, 0)
    return AccountState(account.name, balance.posted, balance.held, account.available(currency))
