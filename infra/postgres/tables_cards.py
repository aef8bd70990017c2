"""The tables of holds and card payments, as reads need them."""

from __future__ import annotations

from sqlalchemy import ARRAY, TIMESTAMP, BigInteger, Boolean, Column, MetaData, SmallInteger, Table, Text, Uuid

_TIME = TIMESTAMP(timezone=True)
_COUNTED = ("amount", "approved_amount", "authorized", "captured", "refunded", "given_back", "expensed", "held")


def add_tables(metadata: MetaData) -> dict[str, Table]:
    """Put the tables into the metadata; gives them by name."""

    def key(name: str, kind: object) -> Column[object]:
        return Column(name, kind, primary_key=True, autoincrement=False)  # type: ignore[arg-type]

    def need(name: str, kind: object) -> Column[object]:
        return Column(name, kind, nullable=False)  # type: ignore[arg-type]

    tables = (
        Table(
            "hold_changes",
            metadata,
            key("shard", SmallInteger),
            key("seq", BigInteger),
            key("account_id", Uuid),
            key("currency", Text),
            need("amount", BigInteger),
            need("held_after", BigInteger),
            need("version", BigInteger),
        ),
        Table(
            "authorization_events",
            metadata,
            key("shard", SmallInteger),
            key("authorization_key", Uuid),
            key("seq", BigInteger),
        ),
        Table(
            "holds",
            metadata,
            key("shard", SmallInteger),
            key("hold_key", Uuid),
            need("tenant_id", Text),
            need("hold_id", Text),
            need("account_id", Uuid),
            need("currency", Text),
            need("direction", Text),
            Column("payment_id", Text),
            need("status", Text),
            need("amount", BigInteger),
            need("held", BigInteger),
            need("captured", BigInteger),
            need("expires_at", _TIME),
            Column("adjusted_at", _TIME),
            need("entry_ids", ARRAY(Text)),
        ),
        Table(
            "authorizations",
            metadata,
            key("shard", SmallInteger),
            key("authorization_key", Uuid),
            need("tenant_id", Text),
            need("provider", Text),
            need("external_id", Text),
            need("status", Text),
            need("confirmed", Boolean),
            Column("currency", Text),
            Column("account_id", Uuid),
            Column("decision", Text),
            Column("decided_by", Text),
            Column("reason", Text),
            need("reasons", ARRAY(Text)),
            *(need(name, BigInteger) for name in _COUNTED),
            need("categories", ARRAY(Text)),
            need("lines", ARRAY(Text)),
            Column("expires_at", _TIME),
            Column("adjusted_at", _TIME),
        ),
        Table(
            "expense_categories",
            metadata,
            key("shard", SmallInteger),
            key("category_key", Uuid),
            need("tenant_id", Text),
            need("code", Text),
            need("name", Text),
            Column("description", Text),
            Column("reference", Text),
            need("match", Text),
        ),
        Table(
            "lines_of_credit",
            metadata,
            key("shard", SmallInteger),
            key("line_key", Uuid),
            need("owner_key", Uuid),
            need("tenant_id", Text),
            need("line_of_credit_id", Text),
            need("owner_type", Text),
            need("owner_ref", Text),
            need("expense_category", Text),
            need("currency", Text),
            need("credits_limit", BigInteger),
            need("expensed_credits", BigInteger),
            need("terminated", Boolean),
        ),
        Table(
            "cards",
            metadata,
            key("shard", SmallInteger),
            key("card_key", Uuid),
            need("tenant_id", Text),
            need("card_id", Text),
            Column("owner_type", Text),
            Column("owner_ref", Text),
        ),
    )
    return {table.name: table for table in tables}
