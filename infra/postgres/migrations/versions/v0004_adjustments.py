"""What leads to the adjustments of a hold, for `explain`; and how shards are written to by now.

Nobody writes events while the index is made, which goes once through all of them.
"""

from __future__ import annotations

from infra.postgres.migrations.steps import execute, refuse_downgrade

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Partial: no other event pays for it.
    "CREATE INDEX events_hold_adjusted_ix ON events (shard, tenant_id, seq)"
    " WHERE type = 'hold.adjusted.v1' AND outcome = 'applied'",
    "COMMENT ON TABLE shards IS 'One row a shard: every ledger transaction locks exactly one of them; first, or where"
    " it was decided ahead in the statement that writes, which finds it as it was read or writes nothing'",
)


def upgrade() -> None:
    """Create the one index."""
    execute(STATEMENTS)


downgrade = refuse_downgrade
