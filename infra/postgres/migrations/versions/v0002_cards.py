"""Holds, card authorizations, lines of credit, expense categories and cards."""

from __future__ import annotations

from infra.postgres.migrations.steps import execute, refuse_downgrade

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JOURNAL = (
    """
    CREATE TABLE hold_changes (
        shard smallint NOT NULL,
        seq bigint NOT NULL,
        account_id uuid NOT NULL,
        currency text COLLATE "C" NOT NULL,
        amount bigint NOT NULL,
        held_after bigint NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (shard, seq, account_id, currency),
        CONSTRAINT hold_changes_amount_not_zero_ck CHECK (amount <> 0),
        CONSTRAINT hold_changes_held_after_ck CHECK (held_after >= 0),
        CONSTRAINT hold_changes_version_ck CHECK (version > 0)
    )
    """,
    "COMMENT ON TABLE hold_changes IS 'By how much the event at this seq moved what is held of a balance; held_after"
    " and version are the balance''s after the event'",
    """
    CREATE TABLE authorization_events (
        shard smallint NOT NULL,
        authorization_key uuid NOT NULL,
        seq bigint NOT NULL,
        PRIMARY KEY (shard, authorization_key, seq)
    )
    """,
    "COMMENT ON TABLE authorization_events IS 'The seqs of the events that were applied to an authorization'",
)

BOOKS = (
    """
    CREATE TABLE holds (
        shard smallint NOT NULL,
        hold_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        hold_id text NOT NULL,
        account_id uuid NOT NULL,
        currency text COLLATE "C" NOT NULL,
        direction text NOT NULL,
        payment_id text,
        status text NOT NULL,
        amount bigint NOT NULL,
        held bigint NOT NULL,
        captured bigint NOT NULL,
        expires_at timestamptz NOT NULL,
        adjusted_at timestamptz,
        entry_ids text[] NOT NULL,
        PRIMARY KEY (shard, hold_key),
        CONSTRAINT holds_direction_ck CHECK (direction IN ('in', 'out')),
        CONSTRAINT holds_status_ck CHECK (status IN ('pending', 'captured', 'voided', 'expired')),
        CONSTRAINT holds_held_ck CHECK (held >= 0 AND (held = 0 OR status = 'pending')),
        CONSTRAINT holds_captured_ck CHECK (captured >= 0)
    ) WITH (fillfactor = 80)
    """,
    # For the clock process: what has reached its end.
    "CREATE INDEX holds_expires_ix ON holds (shard, expires_at) WHERE status = 'pending'",
    """
    CREATE TABLE authorizations (
        shard smallint NOT NULL,
        authorization_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        provider text NOT NULL,
        external_id text NOT NULL,
        status text NOT NULL,
        confirmed boolean NOT NULL,
        currency text COLLATE "C",
        account_id uuid,
        decision text,
        decided_by text,
        reason text,
        reasons text[] NOT NULL,
        amount bigint NOT NULL,
        approved_amount bigint NOT NULL,
        authorized bigint NOT NULL,
        captured bigint NOT NULL,
        refunded bigint NOT NULL,
        given_back bigint NOT NULL,
        expensed bigint NOT NULL,
        held bigint NOT NULL,
        categories text[] NOT NULL,
        lines text[] NOT NULL,
        expires_at timestamptz,
        adjusted_at timestamptz,
        PRIMARY KEY (shard, authorization_key),
        CONSTRAINT authorizations_status_ck
            CHECK (status IN ('pending', 'declined', 'approved', 'captured', 'released')),
        CONSTRAINT authorizations_decision_ck CHECK (decision IN ('approved', 'declined')),
        CONSTRAINT authorizations_decided_by_ck CHECK (decided_by IN ('ledger', 'stand_in')),
        CONSTRAINT authorizations_amounts_ck
            CHECK (least(amount, approved_amount, authorized, captured, refunded, given_back, expensed) >= 0),
        CONSTRAINT authorizations_held_ck CHECK (held >= 0 AND (held = 0 OR status = 'approved'))
    ) WITH (fillfactor = 70)
    """,
    "COMMENT ON TABLE authorizations IS 'Card payments; expensed is what each of its lines has of it, held what its"
    " account has'",
    # For the clock process: what has reached its end.
    "CREATE INDEX authorizations_expires_ix ON authorizations (shard, expires_at) WHERE status = 'approved'",
    """
    CREATE TABLE expense_categories (
        shard smallint NOT NULL,
        category_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        code text COLLATE "C" NOT NULL,
        name text NOT NULL,
        description text,
        reference text,
        match text NOT NULL,
        PRIMARY KEY (shard, category_key),
        CONSTRAINT expense_categories_code_uq UNIQUE (shard, tenant_id, code)
    )
    """,
    "COMMENT ON COLUMN expense_categories.match IS 'A JSON array of rules, as given'",
    """
    CREATE TABLE lines_of_credit (
        shard smallint NOT NULL,
        line_key uuid NOT NULL,
        owner_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        line_of_credit_id text NOT NULL,
        owner_type text COLLATE "C" NOT NULL,
        owner_ref text COLLATE "C" NOT NULL,
        expense_category text COLLATE "C" NOT NULL,
        currency text COLLATE "C" NOT NULL,
        credits_limit bigint NOT NULL,
        expensed_credits bigint NOT NULL,
        terminated boolean NOT NULL,
        PRIMARY KEY (shard, line_key),
        CONSTRAINT lines_of_credit_limit_ck CHECK (credits_limit >= 0),
        CONSTRAINT lines_of_credit_expensed_ck CHECK (expensed_credits >= 0)
    ) WITH (fillfactor = 60)
    """,
    # One line for an owner and a category.
    "CREATE UNIQUE INDEX lines_of_credit_owner_uq ON lines_of_credit (shard, owner_key) WHERE NOT terminated",
    # For the line of credit resolver and `lines`.
    "CREATE INDEX lines_of_credit_owner_ix ON lines_of_credit (shard, tenant_id, owner_type, owner_ref)",
    """
    CREATE TABLE cards (
        shard smallint NOT NULL,
        card_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        card_id text COLLATE "C" NOT NULL,
        owner_type text COLLATE "C",
        owner_ref text COLLATE "C",
        PRIMARY KEY (shard, card_key),
        CONSTRAINT cards_card_id_uq UNIQUE (shard, tenant_id, card_id),
        CONSTRAINT cards_owner_ck CHECK ((owner_type IS NULL) = (owner_ref IS NULL))
    )
    """,
    "COMMENT ON TABLE cards IS 'Whose cards are whose; without an owner: unassigned'",
)

RULES = (
    *(
        statement
        for table in ("hold_changes", "authorization_events")
        for statement in (
            f"CREATE TRIGGER {table}_insert_only_tr BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()",
            f"CREATE TRIGGER {table}_no_truncate_tr BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        )
    ),
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ledgerstream_worker') THEN
            GRANT SELECT, INSERT ON hold_changes, authorization_events, holds, authorizations, expense_categories,
                lines_of_credit, cards TO ledgerstream_worker;
            GRANT UPDATE ON holds, authorizations, lines_of_credit, cards TO ledgerstream_worker;
        END IF;
    END
    $$
    """,
)


def upgrade() -> None:
    """Create the tables beside those that are there; nothing of theirs changes."""
    execute((*JOURNAL, *BOOKS, *RULES))


downgrade = refuse_downgrade
