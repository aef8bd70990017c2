-- Each day's change of a balance is what folding the postings of that day gives, and its seqs hold all of them.
WITH folded AS (
    SELECT shard, account_id, currency, (effective_at AT TIME ZONE 'UTC')::date AS day,
           sum(amount) AS change, min(seq) AS seq_first, max(seq) AS seq_last
    FROM postings
    GROUP BY shard, account_id, currency, day
)
SELECT shard,
       accounts.tenant_id,
       format('account %s on %s has a change of %s %s; its postings give %s', COALESCE(accounts.name, account_id::text),
           day, COALESCE(days.change, 0), currency, COALESCE(folded.change, 0)) AS fault
FROM balance_days AS days
FULL JOIN folded USING (shard, account_id, currency, day)
LEFT JOIN (
    SELECT shard, account_id, tenant_id, name
    FROM accounts
) AS accounts USING (shard, account_id)
WHERE days.change IS NULL
   OR folded.change IS NULL
   OR days.change <> folded.change
   OR days.seq_first > folded.seq_first
   OR days.seq_last < folded.seq_last
