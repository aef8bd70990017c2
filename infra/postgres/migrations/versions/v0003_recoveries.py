"""Where each epoch begins: what `ledgerstream recover` decided, for good."""

from __future__ import annotations

from infra.postgres.migrations.steps import execute, refuse_downgrade

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE recoveries (
        shard smallint NOT NULL REFERENCES shards,
        epoch integer NOT NULL,
        next_seq bigint NOT NULL,
        outputs_from bigint NOT NULL,
        head_hash bytea NOT NULL,
        recorded_at timestamptz NOT NULL,
        streams_epoch integer NOT NULL,
        streams_seq bigint NOT NULL,
        lost bigint NOT NULL,
        sealed boolean NOT NULL,
        recovered_at timestamptz NOT NULL,
        PRIMARY KEY (shard, epoch),
        CONSTRAINT recoveries_epoch_ck CHECK (epoch > 1),
        CONSTRAINT recoveries_outputs_ck CHECK (outputs_from BETWEEN 1 AND next_seq),
        CONSTRAINT recoveries_head_hash_ck CHECK (octet_length(head_hash) = 32)
    )
    """,
    "COMMENT ON TABLE recoveries IS 'Where each later epoch of a shard begins: ids are of it from next_seq on, outputs"
    " from outputs_from on; head_hash and recorded_at are those before outputs_from. sealed: the streams had something"
    " else there, so a seal of the new epoch says from where on it counts'",
    "CREATE TRIGGER recoveries_insert_only_tr BEFORE UPDATE OR DELETE ON recoveries"
    " FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER recoveries_no_truncate_tr BEFORE TRUNCATE ON recoveries"
    " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ledgerstream_worker') THEN
            GRANT SELECT ON recoveries TO ledgerstream_worker;
        END IF;
    END
    $$
    """,
)


def upgrade() -> None:
    """Create the one table."""
    execute(STATEMENTS)


downgrade = refuse_downgrade
