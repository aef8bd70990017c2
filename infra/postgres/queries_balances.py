"""Balances: as they are, as they were on a day, and as they were known on a day."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import CTE, TIMESTAMP, ColumnElement, Select, and_, case, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.accounts import NORMAL_SIGN, AccountType
from infra.postgres.queries_places import (
    SEQ_MAX,
    AccountPlace,
    alone,
    find_account,
    find_shard,
    seq_at,
    with_children,
)
from infra.postgres.tables import accounts, balance_days, balances, postings


class BalanceLine(TypedDict):
    """An account in one currency, minor units: `posted` and `pending` signed, `available` natural.

    None for what is not known of the past: what was pending and held then, and with `at` the version.
    """

    tenant: str
    account: str
    account_id: UUID
    currency: str
    type: str
    posted: int
    pending: int | None
    held: int | None
    available: int | None
    version: int | None
    updated_at: datetime | None
    recursive_posted: NotRequired[int]


class TrialBalanceLine(TypedDict):
    account: str
    currency: str
    type: str
    posted: int


class TrialBalanceTotal(TypedDict):
    currency: str
    total: int


def natural(account_type: str, posted: int) -> int:
    """An amount, positive in the normal direction of the account's type."""
    return NORMAL_SIGN[AccountType(account_type)] * posted


async def balance(
    connection: AsyncConnection,
    tenant_id: str,
    account: str,
    *,
    currency: str | None = None,
    at: datetime | None = None,
    known_at: datetime | None = None,
    recursive: bool = False,
) -> list[BalanceLine]:
    """One account's balances, a line per currency, in the order of their codes.

    `at`: of what was effective then or before; `known_at`: of what was recorded then or before; both together: both.
    A currency that is asked for, and the account's own, has a line even where nothing was posted.
    Raises: NotFound.
    """
    place = await find_account(connection, tenant_id, account)
    past = at is not None or known_at is not None
    lines = await _past(connection, place, at, known_at) if past else await _now(connection, place)
    wider = await _recursive(connection, place, at, known_at) if recursive else {}
    for code in {*wider, *filter(None, (currency, place.currency))}:
        lines.setdefault(code, _line(place, code, 0) if past else _untouched(place, code))
    if recursive:
        for code, line in lines.items():
            line["recursive_posted"] = wider.get(code, 0)
    return [lines[code] for code in sorted(lines) if currency in (None, code)]


async def trial_balance(
    connection: AsyncConnection, tenant_id: str, *, at: datetime | None = None
) -> tuple[list[TrialBalanceLine], list[TrialBalanceTotal]]:
    """All of a tenant's accounts in each of their currencies, by name, and the sums per currency, which are 0.

    Raises: NotFound.
    """
    shard = await find_shard(connection, tenant_id)
    named = (
        select(accounts.c.shard, accounts.c.account_id, accounts.c.name, accounts.c.type)
        .where(accounts.c.shard == shard, accounts.c.tenant_id == tenant_id)
        .cte("named")
    )
    columns = (named.c.name, balances.c.currency, named.c.type, balances.c.posted)
    if at is None:
        query = select(*columns).join(balances, _same_account(balances.c, named))
    else:
        query = _posted_past(named, named.c.name, balance_days.c.currency, named.c.type, at=at, seq_last=SEQ_MAX)
    totals: defaultdict[str, int] = defaultdict(int)
    lines: list[TrialBalanceLine] = []
    for name, currency, account_type, posted in await connection.execute(
        query.order_by(named.c.name).order_by("currency")
    ):
        lines.append({"account": name, "currency": currency, "type": account_type, "posted": int(posted)})
        totals[currency] += int(posted)
    return lines, [{"currency": currency, "total": totals[currency]} for currency in sorted(totals)]


async def posted_at(connection: AsyncConnection, named: CTE, at: datetime) -> dict[str, int]:
    """What a set of accounts had posted together, per currency, of what was effective at a time or before."""
    query = _posted_past(named, balance_days.c.currency, at=at, seq_last=SEQ_MAX)
    return {currency: int(posted) for currency, posted in await connection.execute(query)}


async def _now(connection: AsyncConnection, place: AccountPlace) -> dict[str, BalanceLine]:
    columns = ("currency", "posted", "pending", "held", "version", "updated_at")
    rows = await connection.execute(
        select(*(balances.c[column] for column in columns)).where(
            balances.c.shard == place.shard, balances.c.account_id == place.account_id
        )
    )
    lines = {}
    for currency, posted, pending, held, version, updated_at in rows:
        line = lines[currency] = _line(place, currency, posted)
        line["pending"], line["held"] = pending, held
        line["available"] = natural(place.type, posted) - held
        line["version"], line["updated_at"] = version, updated_at
    return lines


async def _past(
    connection: AsyncConnection, place: AccountPlace, at: datetime | None, known_at: datetime | None
) -> dict[str, BalanceLine]:
    seq_last = SEQ_MAX if known_at is None else await seq_at(connection, place.shard, known_at)
    query = _posted_past(alone(place), balance_days.c.currency, at=at, seq_last=seq_last)
    return {currency: _line(place, currency, int(posted)) for currency, posted in await connection.execute(query)}


async def _recursive(
    connection: AsyncConnection, place: AccountPlace, at: datetime | None, known_at: datetime | None
) -> dict[str, int]:
    named = with_children(place)
    if at is None and known_at is None:
        query: Select[Any] = (
            select(balances.c.currency, func.sum(balances.c.posted))
            .join_from(named, balances, _same_account(balances.c, named))
            .group_by(balances.c.currency)
        )
    else:
        seq_last = SEQ_MAX if known_at is None else await seq_at(connection, place.shard, known_at)
        query = _posted_past(named, balance_days.c.currency, at=at, seq_last=seq_last)
    return {currency: int(posted) for currency, posted in await connection.execute(query)}


def _line(place: AccountPlace, currency: str, posted: int) -> BalanceLine:
    return {
        "tenant": place.tenant_id,
        "account": place.name,
        "account_id": place.account_id,
        "currency": currency,
        "type": place.type,
        "posted": posted,
        "pending": None,
        "held": None,
        "available": None,
        "version": None,
        "updated_at": None,
    }


def _untouched(place: AccountPlace, currency: str) -> BalanceLine:
    line = _line(place, currency, 0)
    line["pending"] = line["held"] = line["available"] = line["version"] = 0
    return line


def _same_account(table: Any, named: CTE) -> ColumnElement[bool]:
    return and_(table.shard == named.c.shard, table.account_id == named.c.account_id)


def _posted_past(named: CTE, *group: ColumnElement[Any], at: datetime | None, seq_last: int) -> Select[Any]:
    """Posted per group of what was effective at `at` or before and recorded up to `seq_last`.

    Days that lie wholly before both are taken as sums; only a day that one of them cuts is folded from its postings,
    between the seqs that it stands at.
    """
    day, last_day = balance_days.c.day, date.max if at is None else at.astimezone(UTC).date()
    whole = and_(day < last_day, balance_days.c.seq_last <= seq_last)
    cut = [
        postings.c.shard == balance_days.c.shard,
        postings.c.account_id == balance_days.c.account_id,
        postings.c.currency == balance_days.c.currency,
        postings.c.seq >= balance_days.c.seq_first,
        postings.c.seq <= func.least(balance_days.c.seq_last, seq_last),
        postings.c.effective_at >= _midnight(day),
        postings.c.effective_at < _midnight(day + 1),
    ]
    if at is not None:
        cut.append(postings.c.effective_at <= at)
    folded = select(func.coalesce(func.sum(postings.c.amount), 0)).where(*cut).correlate(balance_days).scalar_subquery()
    return (
        select(*group, func.sum(case((whole, balance_days.c.change), else_=folded)).label("posted"))
        .join_from(named, balance_days, _same_account(balance_days.c, named))
        .where(day <= last_day, balance_days.c.seq_first <= seq_last)
        .group_by(*group)
    )


def _midnight(day: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.timezone("UTC", cast(day, TIMESTAMP))


def just_before(moment: datetime) -> datetime:
    """The last time there is before a moment; Postgres counts in microseconds."""
    return moment - timedelta(microseconds=1)
