"""The ledger's first schema: journal, books, keys, outbox.

Hand-written SQL, one statement a string, forward only. What every table is for is said in its COMMENT.
"""

from __future__ import annotations

from infra.postgres.migrations.steps import execute, refuse_downgrade

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# One row of each says what this ledger is; none of them grows with traffic.
IDENTITY = (
    """
    CREATE TABLE ledger (
        singleton boolean PRIMARY KEY DEFAULT true,
        ledger_id uuid NOT NULL DEFAULT gen_random_uuid(),
        shards smallint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT ledger_one_row_ck CHECK (singleton),
        CONSTRAINT ledger_shards_ck CHECK (shards BETWEEN 1 AND 1024)
    )
    """,
    "COMMENT ON TABLE ledger IS 'What was fixed when this database was made'",
    """
    CREATE TABLE topics (
        topic text PRIMARY KEY,
        partitions integer NOT NULL,
        CONSTRAINT topics_partitions_ck CHECK (partitions > 0)
    )
    """,
    "COMMENT ON TABLE topics IS 'Partition counts as first seen, by the full name of the topic: a change is refused'",
    """
    CREATE TABLE shards (
        shard smallint PRIMARY KEY,
        epoch integer NOT NULL DEFAULT 1,
        next_seq bigint NOT NULL DEFAULT 1,
        head_hash bytea NOT NULL,
        last_recorded_at timestamptz NOT NULL DEFAULT '-infinity',
        CONSTRAINT shards_epoch_ck CHECK (epoch BETWEEN 1 AND 65535),
        CONSTRAINT shards_next_seq_ck CHECK (next_seq > 0),
        CONSTRAINT shards_head_hash_ck CHECK (octet_length(head_hash) = 32)
    ) WITH (fillfactor = 20)
    """,
    "COMMENT ON TABLE shards IS 'One row a shard: every ledger transaction locks exactly one of them, first'",
    """
    CREATE TABLE tenants (
        tenant_id text COLLATE "C" PRIMARY KEY,
        shard smallint NOT NULL REFERENCES shards
    )
    """,
    "COMMENT ON TABLE tenants IS 'The shard a tenant lives on, for good'",
)

# What came in and what it did: INSERT only.
JOURNAL = (
    """
    CREATE TABLE events (
        shard smallint NOT NULL,
        seq bigint NOT NULL,
        outputs smallint NOT NULL,
        outcome text NOT NULL,
        resumes bigint,
        tenant_id text COLLATE "C" NOT NULL,
        type text NOT NULL,
        source text NOT NULL,
        event_id text NOT NULL,
        idempotency_key text,
        traceparent text,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        topic text,
        partition integer,
        "offset" bigint,
        fingerprint bigint NOT NULL,
        code text,
        message text,
        waits_for text,
        data text NOT NULL,
        PRIMARY KEY (shard, seq),
        CONSTRAINT events_outcome_ck CHECK (outcome IN ('applied', 'rejected', 'parked')),
        CONSTRAINT events_code_ck CHECK ((outcome = 'applied') = (code IS NULL)),
        CONSTRAINT events_outputs_ck CHECK (outputs > 0)
    ) PARTITION BY RANGE (shard, seq)
    """,
    "COMMENT ON TABLE events IS 'Each handling of an event, by the seq of its first output; resumes names the row"
    " of the event''s parking'",
    # For `rejections list` and `parked list`: what was not applied is rare.
    "CREATE INDEX events_not_applied_ix ON events (shard, seq) WHERE outcome <> 'applied'",
    """
    CREATE TABLE entries (
        shard smallint NOT NULL,
        seq bigint NOT NULL,
        entry_id uuid NOT NULL,
        event_seq bigint NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        kind text NOT NULL,
        description text,
        payment_id text,
        refund_id text,
        transfer_id text,
        payout_id text,
        dispute_id text,
        metadata text,
        effective_at timestamptz NOT NULL,
        occurred_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL,
        reverses uuid,
        pending boolean NOT NULL DEFAULT false,
        breaches text[] NOT NULL DEFAULT '{}',
        PRIMARY KEY (shard, seq)
    ) PARTITION BY RANGE (shard, seq)
    """,
    "COMMENT ON TABLE entries IS 'The journal: each entry''s postings sum to zero per currency'",
    # For `entries --payment-id` and its like; partial, so that an entry pays only for what it names.
    "CREATE INDEX entries_payment_ix ON entries (shard, payment_id, seq) WHERE payment_id IS NOT NULL",
    "CREATE INDEX entries_refund_ix ON entries (shard, refund_id, seq) WHERE refund_id IS NOT NULL",
    "CREATE INDEX entries_transfer_ix ON entries (shard, transfer_id, seq) WHERE transfer_id IS NOT NULL",
    "CREATE INDEX entries_payout_ix ON entries (shard, payout_id, seq) WHERE payout_id IS NOT NULL",
    "CREATE INDEX entries_dispute_ix ON entries (shard, dispute_id, seq) WHERE dispute_id IS NOT NULL",
    """
    CREATE TABLE postings (
        shard smallint NOT NULL,
        seq bigint NOT NULL,
        leg smallint NOT NULL,
        account_id uuid NOT NULL,
        currency text COLLATE "C" NOT NULL,
        amount bigint NOT NULL,
        posted_after bigint NOT NULL,
        version bigint NOT NULL,
        effective_at timestamptz NOT NULL,
        PRIMARY KEY (shard, seq, leg),
        CONSTRAINT postings_amount_not_zero_ck CHECK (amount <> 0),
        CONSTRAINT postings_version_ck CHECK (version > 0)
    ) PARTITION BY RANGE (shard, seq)
    """,
    "COMMENT ON TABLE postings IS 'The legs of entries: debit positive, credit negative, in minor units; posted_after"
    " and version are the account''s after the event'",
    # For `statement`, `entries --account` and balances in the past.
    "CREATE INDEX postings_account_ix ON postings (shard, account_id, seq)",
    """
    CREATE TABLE dead_letters (
        shard smallint NOT NULL,
        seq bigint NOT NULL,
        topic text NOT NULL,
        topic_id uuid NOT NULL,
        partition integer NOT NULL,
        "offset" bigint NOT NULL,
        timestamp_ms bigint NOT NULL,
        code text NOT NULL,
        message text NOT NULL,
        key bytea,
        value bytea,
        headers bytea NOT NULL,
        recorded_at timestamptz NOT NULL,
        PRIMARY KEY (shard, seq)
    )
    """,
    "COMMENT ON TABLE dead_letters IS 'Records that were no events, byte for byte'",
)

# What is true now: a function of the journal.
BOOKS = (
    """
    CREATE TABLE accounts (
        shard smallint NOT NULL,
        account_id uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL,
        type text NOT NULL,
        currency text,
        parent_id uuid,
        floors jsonb NOT NULL DEFAULT '{}',
        ceilings jsonb NOT NULL DEFAULT '{}',
        status text NOT NULL DEFAULT 'active',
        description text,
        metadata text,
        PRIMARY KEY (shard, account_id),
        CONSTRAINT accounts_name_uq UNIQUE (shard, tenant_id, name),
        CONSTRAINT accounts_parent_fk FOREIGN KEY (shard, parent_id) REFERENCES accounts (shard, account_id),
        CONSTRAINT accounts_type_ck CHECK (type IN ('asset', 'liability', 'equity', 'revenue', 'expense')),
        CONSTRAINT accounts_status_ck CHECK (status IN ('active', 'frozen', 'closed')),
        CONSTRAINT accounts_not_its_own_parent_ck CHECK (parent_id <> account_id)
    ) WITH (fillfactor = 80)
    """,
    "COMMENT ON COLUMN accounts.floors IS 'Natural minor units by currency; the key * is for every other currency'",
    # For `balance --recursive` and the check for cycles.
    "CREATE INDEX accounts_parent_ix ON accounts (shard, parent_id) WHERE parent_id IS NOT NULL",
    """
    CREATE TABLE balances (
        shard smallint NOT NULL,
        account_id uuid NOT NULL,
        currency text COLLATE "C" NOT NULL,
        posted bigint NOT NULL,
        pending bigint NOT NULL,
        held bigint NOT NULL,
        version bigint NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (shard, account_id, currency),
        CONSTRAINT balances_held_not_negative_ck CHECK (held >= 0),
        CONSTRAINT balances_version_ck CHECK (version > 0)
    ) WITH (fillfactor = 60)
    """,
    """
    CREATE TABLE balance_days (
        shard smallint NOT NULL,
        account_id uuid NOT NULL,
        currency text COLLATE "C" NOT NULL,
        day date NOT NULL,
        change numeric NOT NULL,
        seq_first bigint NOT NULL,
        seq_last bigint NOT NULL,
        PRIMARY KEY (shard, account_id, currency, day)
    ) WITH (fillfactor = 60)
    """,
    "COMMENT ON TABLE balance_days IS 'Postings summed by the UTC day they are effective on, and between which seqs"
    " they stand: a balance at any time folds one day at most'",
    """
    CREATE TABLE periods (
        shard smallint NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        closed_through date NOT NULL,
        PRIMARY KEY (shard, tenant_id)
    )
    """,
    """
    CREATE TABLE payments (
        shard smallint NOT NULL,
        payment_key uuid NOT NULL,
        currency text COLLATE "C" NOT NULL,
        customer_id text COLLATE "C" NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        provider text,
        payment_id text NOT NULL,
        cash_account_id uuid NOT NULL,
        captured numeric NOT NULL,
        refunded numeric NOT NULL,
        PRIMARY KEY (shard, payment_key, currency, customer_id),
        CONSTRAINT payments_refunded_within_captured_ck CHECK (refunded BETWEEN 0 AND captured)
    ) WITH (fillfactor = 80)
    """,
    "COMMENT ON TABLE payments IS 'What was captured and refunded of a payment, all captures together'",
    """
    CREATE TABLE refunds (
        shard smallint NOT NULL,
        refund_key uuid NOT NULL,
        payment_key uuid,
        tenant_id text COLLATE "C" NOT NULL,
        provider text,
        refund_id text NOT NULL,
        payment_id text,
        currency text COLLATE "C" NOT NULL,
        customer_id text COLLATE "C" NOT NULL,
        customer_account_id uuid NOT NULL,
        cash_account_id uuid NOT NULL,
        amount bigint NOT NULL,
        failed boolean NOT NULL,
        PRIMARY KEY (shard, refund_key),
        CONSTRAINT refunds_amount_ck CHECK (amount > 0)
    )
    """,
    """
    CREATE TABLE transfers (
        shard smallint NOT NULL,
        transfer_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        provider text,
        transfer_id text NOT NULL,
        currency text COLLATE "C" NOT NULL,
        customer_account_id uuid NOT NULL,
        merchant_account_id uuid NOT NULL,
        amount bigint NOT NULL,
        reversed bigint NOT NULL,
        PRIMARY KEY (shard, transfer_key),
        CONSTRAINT transfers_reversed_within_amount_ck CHECK (reversed BETWEEN 0 AND amount)
    )
    """,
    """
    CREATE TABLE payouts (
        shard smallint NOT NULL,
        payout_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        provider text,
        payout_id text NOT NULL,
        currency text COLLATE "C" NOT NULL,
        merchant_account_id uuid NOT NULL,
        cash_account_id uuid NOT NULL,
        amount bigint NOT NULL,
        failed boolean NOT NULL,
        PRIMARY KEY (shard, payout_key),
        CONSTRAINT payouts_amount_ck CHECK (amount > 0)
    )
    """,
    """
    CREATE TABLE disputes (
        shard smallint NOT NULL,
        dispute_key uuid NOT NULL,
        tenant_id text COLLATE "C" NOT NULL,
        provider text,
        dispute_id text NOT NULL,
        payment_id text,
        currency text COLLATE "C" NOT NULL,
        customer_id text COLLATE "C" NOT NULL,
        cash_account_id uuid NOT NULL,
        held bigint NOT NULL,
        PRIMARY KEY (shard, dispute_key),
        CONSTRAINT disputes_held_ck CHECK (held >= 0)
    )
    """,
)

# How each change comes in once and goes out once.
EXACTLY_ONCE = (
    """
    CREATE TABLE idempotency_keys (
        shard smallint NOT NULL,
        key uuid NOT NULL,
        seq bigint NOT NULL,
        fingerprint bigint NOT NULL,
        fingerprint_version smallint NOT NULL,
        PRIMARY KEY (shard, key)
    )
    """,
    "COMMENT ON TABLE idempotency_keys IS 'Keys claimed for ever, and the row of events that claimed them'",
    """
    CREATE TABLE parked (
        shard smallint NOT NULL,
        seq bigint NOT NULL,
        waits_for uuid NOT NULL,
        expires_at timestamptz NOT NULL,
        arrived boolean NOT NULL DEFAULT false,
        PRIMARY KEY (shard, seq)
    )
    """,
    "COMMENT ON TABLE parked IS 'Events that wait for something not there yet; arrived: it is there, their turn comes'",
    # For what arrives: who waits for it, in the order of their parking.
    "CREATE INDEX parked_waits_for_ix ON parked (shard, waits_for, seq)",
    # For the clock process: whose patience is over.
    "CREATE INDEX parked_expires_ix ON parked (shard, expires_at)",
    # For the clock process: whose turn has come.
    "CREATE INDEX parked_arrived_ix ON parked (shard, seq) WHERE arrived",
    """
    CREATE TABLE input_offsets (
        topic text NOT NULL,
        topic_id uuid NOT NULL,
        partition integer NOT NULL,
        next_offset bigint NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, topic_id, partition),
        CONSTRAINT input_offsets_next_offset_ck CHECK (next_offset >= 0)
    ) WITH (fillfactor = 50)
    """,
    "COMMENT ON TABLE input_offsets IS 'The truth about what was read, by the full name of the topic'",
    """
    CREATE TABLE outbox (
        shard smallint NOT NULL,
        seq_last bigint NOT NULL,
        seq_first bigint NOT NULL,
        epoch integer NOT NULL,
        recorded_at timestamptz NOT NULL,
        head_hash bytea NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (shard, seq_last),
        CONSTRAINT outbox_seqs_ck CHECK (seq_first <= seq_last),
        CONSTRAINT outbox_head_hash_ck CHECK (octet_length(head_hash) = 32)
    ) PARTITION BY RANGE (shard, seq_last)
    """,
    "COMMENT ON TABLE outbox IS 'What goes out, its bytes fixed: one row a batch, framed and compressed with zstd'",
    # Compressed already: Postgres need not try.
    "ALTER TABLE outbox ALTER COLUMN body SET STORAGE EXTERNAL",
    """
    CREATE TABLE relayed (
        shard smallint PRIMARY KEY,
        seq bigint NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 20)
    """,
    "COMMENT ON TABLE relayed IS 'A hint how far each shard was relayed; the truth is its last seal'",
)

RULES = (
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the journal is INSERT only: % on % refused', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END
    $$
    """,
    *(
        statement
        for table in ("events", "entries", "postings", "dead_letters")
        for statement in (
            f"CREATE TRIGGER {table}_insert_only_tr BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()",
            f"CREATE TRIGGER {table}_no_truncate_tr BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        )
    ),
    # The role that workers take on. A cluster has one, whatever its databases; where we may not create
    # roles the triggers above stand alone.
    """
    DO $$
    BEGIN
        CREATE ROLE ledgerstream_worker NOLOGIN;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN RAISE NOTICE 'may not create the role ledgerstream_worker';
    END
    $$
    """,
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ledgerstream_worker') THEN
            GRANT SELECT ON ALL TABLES IN SCHEMA public TO ledgerstream_worker;
            GRANT INSERT ON topics, tenants, events, entries, postings, dead_letters, accounts, balances, balance_days,
                periods, payments, refunds, transfers, payouts, disputes, idempotency_keys, parked, input_offsets,
                outbox, relayed TO ledgerstream_worker;
            GRANT UPDATE ON shards, accounts, balances, balance_days, periods, payments, refunds, transfers, payouts,
                disputes, parked, input_offsets, relayed TO ledgerstream_worker;
            GRANT DELETE ON parked, idempotency_keys TO ledgerstream_worker;
        END IF;
    END
    $$
    """,
)


def upgrade() -> None:
    """Create everything; rows and partitions that depend on the number of shards come after (`postgres.migrate`)."""
    execute((*IDENTITY, *JOURNAL, *BOOKS, *EXACTLY_ONCE, *RULES))


downgrade = refuse_downgrade
