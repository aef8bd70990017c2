"""The tables as SQLAlchemy Core needs them for reads; the migrations make them, and a test holds the two together."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    Date,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from infra.postgres.tables_cards import add_tables

metadata = MetaData()

_TIME = TIMESTAMP(timezone=True)


def _key(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, primary_key=True, autoincrement=False)


def _need(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


ledger = Table(
    "ledger",
    metadata,
    _key("singleton", Boolean),
    _need("ledger_id", Uuid),
    _need("shards", SmallInteger),
    _need("created_at", _TIME),
)
topics = Table(
    "topics",
    metadata,
    _key("topic", Text),
    _need("partitions", Integer),
)
shards = Table(
    "shards",
    metadata,
    _key("shard", SmallInteger),
    _need("epoch", Integer),
    _need("next_seq", BigInteger),
    _need("head_hash", LargeBinary),
    _need("last_recorded_at", _TIME),
)
tenants = Table(
    "tenants",
    metadata,
    _key("tenant_id", Text),
    _need("shard", SmallInteger),
)
events = Table(
    "events",
    metadata,
    _key("shard", SmallInteger),
    _key("seq", BigInteger),
    _need("outputs", SmallInteger),
    _need("outcome", Text),
    Column("resumes", BigInteger),
    _need("tenant_id", Text),
    _need("type", Text),
    _need("source", Text),
    _need("event_id", Text),
    Column("idempotency_key", Text),
    Column("traceparent", Text),
    _need("occurred_at", _TIME),
    _need("recorded_at", _TIME),
    Column("topic", Text),
    Column("partition", Integer),
    Column("offset", BigInteger),
    _need("fingerprint", BigInteger),
    Column("code", Text),
    Column("message", Text),
    Column("waits_for", Text),
    _need("data", Text),
)
entries = Table(
    "entries",
    metadata,
    _key("shard", SmallInteger),
    _key("seq", BigInteger),
    _need("entry_id", Uuid),
    _need("event_seq", BigInteger),
    _need("tenant_id", Text),
    _need("kind", Text),
    Column("description", Text),
    Column("payment_id", Text),
    Column("refund_id", Text),
    Column("transfer_id", Text),
    Column("payout_id", Text),
    Column("dispute_id", Text),
    Column("metadata", Text),
    _need("effective_at", _TIME),
    _need("occurred_at", _TIME),
    _need("recorded_at", _TIME),
    Column("reverses", Uuid),
    _need("pending", Boolean),
    _need("breaches", ARRAY(Text)),
)
postings = Table(
    "postings",
    metadata,
    _key("shard", SmallInteger),
    _key("seq", BigInteger),
    _key("leg", SmallInteger),
    _need("account_id", Uuid),
    _need("currency", Text),
    _need("amount", BigInteger),
    _need("posted_after", BigInteger),
    _need("version", BigInteger),
    _need("effective_at", _TIME),
)
dead_letters = Table(
    "dead_letters",
    metadata,
    _key("shard", SmallInteger),
    _key("seq", BigInteger),
    _need("topic", Text),
    _need("topic_id", Uuid),
    _need("partition", Integer),
    _need("offset", BigInteger),
    _need("timestamp_ms", BigInteger),
    _need("code", Text),
    _need("message", Text),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    _need("headers", LargeBinary),
    _need("recorded_at", _TIME),
)
accounts = Table(
    "accounts",
    metadata,
    _key("shard", SmallInteger),
    _key("account_id", Uuid),
    _need("tenant_id", Text),
    _need("name", Text),
    _need("type", Text),
    Column("currency", Text),
    Column("parent_id", Uuid),
    _need("floors", JSONB),
    _need("ceilings", JSONB),
    _need("status", Text),
    Column("description", Text),
    Column("metadata", Text),
)
balances = Table(
    "balances",
    metadata,
    _key("shard", SmallInteger),
    _key("account_id", Uuid),
    _key("currency", Text),
    _need("posted", BigInteger),
    _need("pending", BigInteger),
    _need("held", BigInteger),
    _need("version", BigInteger),
    _need("updated_at", _TIME),
)
balance_days = Table(
    "balance_days",
    metadata,
    _key("shard", SmallInteger),
    _key("account_id", Uuid),
    _key("currency", Text),
    _key("day", Date),
    _need("change", Numeric),
    _need("seq_first", BigInteger),
    _need("seq_last", BigInteger),
)
periods = Table(
    "periods",
    metadata,
    _key("shard", SmallInteger),
    _key("tenant_id", Text),
    _need("closed_through", Date),
)
payments = Table(
    "payments",
    metadata,
    _key("shard", SmallInteger),
    _key("payment_key", Uuid),
    _key("currency", Text),
    _key("customer_id", Text),
    _need("tenant_id", Text),
    Column("provider", Text),
    _need("payment_id", Text),
    _need("cash_account_id", Uuid),
    _need("captured", Numeric),
    _need("refunded", Numeric),
)
refunds = Table(
    "refunds",
    metadata,
    _key("shard", SmallInteger),
    _key("refund_key", Uuid),
    Column("payment_key", Uuid),
    _need("tenant_id", Text),
    Column("provider", Text),
    _need("refund_id", Text),
    Column("payment_id", Text),
    _need("currency", Text),
    _need("customer_id", Text),
    _need("customer_account_id", Uuid),
    _need("cash_account_id", Uuid),
    _need("amount", BigInteger),
    _need("failed", Boolean),
)
transfers = Table(
    "transfers",
    metadata,
    _key("shard", SmallInteger),
    _key("transfer_key", Uuid),
    _need("tenant_id", Text),
    Column("provider", Text),
    _need("transfer_id", Text),
    _need("currency", Text),
    _need("customer_account_id", Uuid),
    _need("merchant_account_id", Uuid),
    _need("amount", BigInteger),
    _need("reversed", BigInteger),
)
payouts = Table(
    "payouts",
    metadata,
    _key("shard", SmallInteger),
    _key("payout_key", Uuid),
    _need("tenant_id", Text),
    Column("provider", Text),
    _need("payout_id", Text),
    _need("currency", Text),
    _need("merchant_account_id", Uuid),
    _need("cash_account_id", Uuid),
    _need("amount", BigInteger),
    _need("failed", Boolean),
)
disputes = Table(
    "disputes",
    metadata,
    _key("shard", SmallInteger),
    _key("dispute_key", Uuid),
    _need("tenant_id", Text),
    Column("provider", Text),
    _need("dispute_id", Text),
    Column("payment_id", Text),
    _need("currency", Text),
    _need("customer_id", Text),
    _need("cash_account_id", Uuid),
    _need("held", BigInteger),
)
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _key("shard", SmallInteger),
    _key("key", Uuid),
    _need("seq", BigInteger),
    _need("fingerprint", BigInteger),
    _need("fingerprint_version", SmallInteger),
)
parked = Table(
    "parked",
    metadata,
    _key("shard", SmallInteger),
    _key("seq", BigInteger),
    _need("waits_for", Uuid),
    _need("expires_at", _TIME),
    _need("arrived", Boolean),
)
input_offsets = Table(
    "input_offsets",
    metadata,
    _key("topic", Text),
    _key("topic_id", Uuid),
    _key("partition", Integer),
    _need("next_offset", BigInteger),
    _need("updated_at", _TIME),
)
outbox = Table(
    "outbox",
    metadata,
    _key("shard", SmallInteger),
    _key("seq_last", BigInteger),
    _need("seq_first", BigInteger),
    _need("epoch", Integer),
    _need("recorded_at", _TIME),
    _need("head_hash", LargeBinary),
    _need("body", LargeBinary),
)
relayed = Table(
    "relayed",
    metadata,
    _key("shard", SmallInteger),
    _need("seq", BigInteger),
    _need("updated_at", _TIME),
)
recoveries = Table(
    "recoveries",
    metadata,
    _key("shard", SmallInteger),
    _key("epoch", Integer),
    _need("next_seq", BigInteger),
    _need("outputs_from", BigInteger),
    _need("head_hash", LargeBinary),
    _need("recorded_at", _TIME),
    _need("streams_epoch", Integer),
    _need("streams_seq", BigInteger),
    _need("lost", BigInteger),
    _need("sealed", Boolean),
    _need("recovered_at", _TIME),
)

_cards = add_tables(metadata)
hold_changes = _cards["hold_changes"]
authorization_events = _cards["authorization_events"]
holds = _cards["holds"]
authorizations = _cards["authorizations"]
expense_categories = _cards["expense_categories"]
lines_of_credit = _cards["lines_of_credit"]
cards = _cards["cards"]
