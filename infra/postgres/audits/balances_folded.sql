-- Each balance is what folding its postings gives. Nothing is held while there are no holds.
WITH folded AS (
    SELECT shard, account_id, currency, sum(amount) AS total
    FROM postings
    GROUP BY shard, account_id, currency
)
SELECT shard,
       accounts.tenant_id,
       format('account %s has %s %s posted, %s pending and %s held; its postings give %s',
           COALESCE(accounts.name, account_id::text), COALESCE(balances.posted::text, 'no balance,'), currency,
           COALESCE(balances.pending, 0), COALESCE(balances.held, 0), COALESCE(folded.total, 0)) AS fault
FROM balances
FULL JOIN folded USING (shard, account_id, currency)
LEFT JOIN (
    SELECT shard, account_id, tenant_id, name
    FROM accounts
) AS accounts USING (shard, account_id)
WHERE balances.posted IS NULL
   OR balances.posted + balances.pending::numeric <> COALESCE(folded.total, 0)
   OR balances.held <> 0
