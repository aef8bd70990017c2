-- Each balance is what folding its postings gives; what is held of it is what folding the moves of what is held gives,
-- and what its open holds and authorizations hold.
WITH folded AS (
    SELECT shard, account_id, currency, sum(amount) AS total
    FROM postings
    GROUP BY shard, account_id, currency
), moved AS (
    SELECT shard, account_id, currency, sum(amount) AS held
    FROM hold_changes
    GROUP BY shard, account_id, currency
), open AS (
    SELECT shard, account_id, currency, sum(held) AS held
    FROM (
        SELECT shard, account_id, currency, held FROM holds WHERE held <> 0
      UNION ALL
        SELECT shard, account_id, currency, held FROM authorizations WHERE held <> 0
    ) AS holding
    GROUP BY shard, account_id, currency
)
SELECT shard,
       accounts.tenant_id,
       format('account %s has %s %s posted, %s pending and %s held; its postings give %s, its holds moved %s and hold %s',
           COALESCE(accounts.name, account_id::text), COALESCE(balances.posted::text, 'no balance,'), currency,
           COALESCE(balances.pending, 0), COALESCE(balances.held, 0), COALESCE(folded.total, 0),
           COALESCE(moved.held, 0), COALESCE(open.held, 0)) AS fault
FROM balances
FULL JOIN folded USING (shard, account_id, currency)
FULL JOIN moved USING (shard, account_id, currency)
FULL JOIN open USING (shard, account_id, currency)
LEFT JOIN (
    SELECT shard, account_id, tenant_id, name
    FROM accounts
) AS accounts USING (shard, account_id)
WHERE balances.posted IS NULL
   OR balances.posted + balances.pending::numeric <> COALESCE(folded.total, 0)
   OR balances.held <> COALESCE(moved.held, 0)
   OR balances.held <> COALESCE(open.held, 0)
