"""The consumer one would write first: FastStream, one message a SQLAlchemy session, publish after commit.

It is right as long as nothing fails: a unique key on the payment, balances updated under a row lock, the balance of
each account published. Kept to be measured against; nobody should use it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from faststream.kafka import KafkaBroker
from sqlalchemy import BigInteger, ForeignKey, String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from infra.devstack import RunningStack
from infra.postgres.migrate import sqlalchemy_url
from infra.settings import Settings
from tests.benchmarks.payments import fill, payments, tenants_of_all_shards
from tests.benchmarks.pipe import fresh_ledger


class Base(DeclarativeBase):
    pass


class NaivePayment(Base):
    __tablename__ = "naive_payments"
    payment_id: Mapped[str] = mapped_column(String, primary_key=True)


class NaiveAccount(Base):
    __tablename__ = "naive_accounts"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger, default=0)


class NaivePosting(Base):
    __tablename__ = "naive_postings"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    payment_id: Mapped[str] = mapped_column(ForeignKey("naive_payments.payment_id"))
    account: Mapped[str] = mapped_column(ForeignKey("naive_accounts.name"))
    amount: Mapped[int] = mapped_column(BigInteger)


@dataclass(slots=True)
class _Naive:
    sessions: async_sessionmaker[AsyncSession]
    broker: KafkaBroker
    topic: str
    handled: int = 0

    async def handle(self, event: dict[str, object]) -> None:
        """One payment: a session, a transaction, then its balances published."""
        data = event["data"]
        assert isinstance(data, dict)
        legs = {
            "platform:cash": data["amount"],
            f"customer_balance:{data['customer_id']}": data["fees"] - data["amount"],
            "platform:fees": -data["fees"],
        }
        balances = {}
        try:
            async with self.sessions() as session, session.begin():
                session.add(NaivePayment(payment_id=data["payment_id"]))
                await session.flush()
                for name, amount in sorted(legs.items()):
                    account = await session.scalar(
                        select(NaiveAccount).where(NaiveAccount.name == name).with_for_update()
                    )
                    if account is None:
                        account = NaiveAccount(name=name, balance=0)
                        session.add(account)
                        await session.flush()
                    account.balance += amount
                    session.add(NaivePosting(payment_id=data["payment_id"], account=name, amount=amount))
                    balances[name] = account.balance
        except IntegrityError:
            self.handled += 1
            return
        for name, balance in balances.items():
            await self.broker.publish(json.dumps({"account": name, "balance": balance}), self.topic, key=name.encode())
        self.handled += 1


async def measure_naive(stack: RunningStack, *, count: int, accounts: int) -> float:
    """Payments a second, from the first to the last of `count` waiting in Kafka."""
    settings = await fresh_ledger(stack, "naive")
    tenants: Sequence[str] = tenants_of_all_shards(settings.shards)
    await fill(settings, payments(count, accounts=accounts, tenants=tenants, seed=2), count, "the naive consumer")
    engine = create_async_engine(sqlalchemy_url(settings), pool_size=8)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    try:
        return await _run(settings, async_sessionmaker(engine, expire_on_commit=False), count)
    finally:
        await engine.dispose()


async def _run(settings: Settings, sessions: async_sessionmaker[AsyncSession], count: int) -> float:
    broker = KafkaBroker(settings.need_kafka_bootstrap(), logger=None)
    naive = _Naive(sessions, broker, settings.topic("balances"))
    broker.subscriber(settings.topic("payments"), group_id="naive", auto_offset_reset="earliest")(naive.handle)
    await broker.start()
    try:
        while naive.handled == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        started, before = time.monotonic(), naive.handled
        while naive.handled < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return (naive.handled - before) / (time.monotonic() - started)
    finally:
        await broker.stop()
