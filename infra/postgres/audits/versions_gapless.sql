-- Versions count from 1 without a gap per account and currency, one per event, and the balance has the last.
WITH moved AS (
    SELECT postings.shard, postings.account_id, postings.currency, postings.version, entries.event_seq
    FROM postings
    JOIN entries USING (shard, seq)
  UNION ALL
    SELECT shard, account_id, currency, version, seq
    FROM hold_changes
), versions AS (
    SELECT shard, account_id, currency, version, min(event_seq) AS event_seq, max(event_seq) AS event_seq_last
    FROM moved
    GROUP BY shard, account_id, currency, version
), ordered AS (
    SELECT *,
           lag(version, 1, 0::bigint) OVER (PARTITION BY shard, account_id, currency ORDER BY event_seq) AS version_before,
           max(version) OVER (PARTITION BY shard, account_id, currency) AS version_last
    FROM versions
)
SELECT shard,
       accounts.tenant_id,
       format('account %s in %s: version %s at seq %s follows version %s and the balance has version %s',
           COALESCE(accounts.name, account_id::text), currency, ordered.version, ordered.event_seq,
           ordered.version_before, balances.version) AS fault
FROM ordered
LEFT JOIN balances USING (shard, account_id, currency)
LEFT JOIN (
    SELECT shard, account_id, tenant_id, name
    FROM accounts
) AS accounts USING (shard, account_id)
WHERE ordered.version <> ordered.version_before + 1
   OR ordered.event_seq <> ordered.event_seq_last
   OR (ordered.version = ordered.version_last AND balances.version <> ordered.version)
