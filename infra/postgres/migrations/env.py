"""Alembic's entry: runs on the connection that `postgres.migrate` hands over, in one database transaction."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True)
# A first statement of SQLAlchemy's own opens the transaction; a driver call before it would commit by itself.
# The lock lets one process migrate while the others wait: 0x6c6564676572 spells "ledger".
connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({0x6C6564676572})")
with context.begin_transaction():
    context.run_migrations()
