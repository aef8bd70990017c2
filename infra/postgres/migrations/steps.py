"""What every step of the schema does."""

from __future__ import annotations

from collections.abc import Iterable

from alembic import op


def execute(statements: Iterable[str]) -> None:
    """Run these statements one by one, in the transaction of the upgrade."""
    connection = op.get_bind()
    for statement in statements:
        connection.exec_driver_sql(statement)


def refuse_downgrade() -> None:
    """Raises: NotImplementedError, always: what was recorded can't be taken back."""
    raise NotImplementedError("forward only: restore a backup, then run `ledgerstream recover`")
