"""Statements: every posting to an account in the order in which it was effective, and the balance after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Literal, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import CTE, Row, Select, and_, case, func, literal, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.postgres.queries_balances import just_before, natural, posted_at
from infra.postgres.queries_places import AccountPlace, alone, find_account, looked_up, with_children
from infra.postgres.tables import accounts, balance_days, entries, postings

Order = Literal["oldest", "youngest"]


class StatementLine(TypedDict):
    """One posting, minor units: `debit` and `credit` as they are, `balance` natural, after it and in its currency.

    `opposing_account` is the one other account of the entry in this currency, None if there are several.
    """

    entry_id: UUID
    transaction_id: NotRequired[str]
    time: datetime
    description: str | None
    currency: str
    debit: int
    credit: int
    balance: int
    opposing_account: str | None
    account: NotRequired[str]


async def statement(
    connection: AsyncConnection,
    tenant_id: str,
    account: str,
    *,
    currency: str | None = None,
    from_time: datetime | None = None,
    to_time: datetime | None = None,
    order: Order = "oldest",
    recursive: bool = False,
) -> AsyncIterator[StatementLine]:
    """The postings to an account, and with `recursive` to those below it, effective between two times, both included.

    The balances begin with what was posted before `from_time`. With `recursive` each line names its own account.
    Raises: NotFound.
    """
    place = await find_account(connection, tenant_id, account)
    named = with_children(place) if recursive else alone(place)
    opening = {} if from_time is None else await posted_at(connection, named, just_before(from_time))
    query = _lines(named, from_time, to_time)
    if currency is not None:
        query = query.where(postings.c.currency == currency)
    columns = ("effective_at", "seq", "leg")
    by_time = [query.selected_columns[column] for column in columns]
    query = query.order_by(*(column.desc() if order == "youngest" else column for column in by_time))
    async for row in await connection.stream(query):
        yield _line(row, place, opening, recursive=recursive)


def _lines(named: CTE, from_time: datetime | None, to_time: datetime | None) -> Select[tuple[object, ...]]:
    other, other_account = postings.alias("other"), accounts.alias("other_account")
    # A subquery of its own, so that each name is looked up by its key whatever is known of the tables.
    other_name = (
        select(other_account.c.name)
        .where(other_account.c.shard == other.c.shard, other_account.c.account_id == other.c.account_id)
        .correlate(other)
        .scalar_subquery()
    )
    opposing = (
        select(case((func.count(other.c.account_id.distinct()) == 1, func.min(other_name))))
        .where(
            other.c.shard == postings.c.shard,
            other.c.seq == postings.c.seq,
            other.c.currency == postings.c.currency,
            other.c.account_id != postings.c.account_id,
        )
        .correlate(postings)
        .scalar_subquery()
    )
    so_far = func.sum(postings.c.amount).over(
        partition_by=postings.c.currency, order_by=(postings.c.effective_at, postings.c.seq, postings.c.leg)
    )
    account = looked_up(accounts, "account", "name", shard=named.c.shard, account_id=named.c.account_id)
    entry = looked_up(
        entries, "entry", "entry_id", "description", "pending", shard=postings.c.shard, seq=postings.c.seq
    )
    query = (
        select(
            entry.c.entry_id,
            postings.c.effective_at,
            postings.c.seq,
            postings.c.leg,
            entry.c.description,
            postings.c.currency,
            postings.c.amount,
            so_far.label("so_far"),
            opposing.label("opposing_account"),
            account.c.name.label("account"),
        )
        .join_from(named, account, true())
        .join(postings, and_(postings.c.shard == named.c.shard, postings.c.account_id == named.c.account_id))
        .join(entry, true())
        .where(entry.c.pending.is_(False))
    )
    return _between(query, named, from_time, to_time)


def _between(
    query: Select[tuple[object, ...]], named: CTE, from_time: datetime | None, to_time: datetime | None
) -> Select[tuple[object, ...]]:
    """Only postings effective in a span; the days of the span say between which seqs to look for them."""
    if from_time is None and to_time is None:
        return query
    days = (
        select(
            func.min(balance_days.c.seq_first).label("seq_first"), func.max(balance_days.c.seq_last).label("seq_last")
        )
        .join_from(
            named,
            balance_days,
            and_(balance_days.c.shard == named.c.shard, balance_days.c.account_id == named.c.account_id),
        )
        .where(literal(True))
    )
    if from_time is not None:
        query = query.where(postings.c.effective_at >= from_time)
        days = days.where(balance_days.c.day >= func.timezone("UTC", from_time).cast(balance_days.c.day.type))
    if to_time is not None:
        query = query.where(postings.c.effective_at <= to_time)
        days = days.where(balance_days.c.day <= func.timezone("UTC", to_time).cast(balance_days.c.day.type))
    span = days.cte("span")
    return query.join(span, postings.c.seq.between(span.c.seq_first, span.c.seq_last))


def _line(
    row: Row[tuple[object, ...]], place: AccountPlace, opening: dict[str, int], *, recursive: bool
) -> StatementLine:
    line: StatementLine = {
        "entry_id": row.entry_id,
        "time": row.effective_at,
        "description": row.description,
        "currency": row.currency,
        "debit": max(row.amount, 0),
        "credit": max(-row.amount, 0),
        "balance": natural(place.type, int(row.so_far) + opening.get(row.currency, 0)),
        "opposing_account": row.opposing_account,
    }
    if recursive:
        line["account"] = row.account
    return line
