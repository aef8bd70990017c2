-- What is still held of each dispute is what its entries left on platform:disputes_held, which may be their cash, too.
WITH moved AS (
    SELECT events.shard, events.tenant_id, COALESCE(events.data::jsonb ->> 'provider', '') AS provider,
           entries.dispute_id, postings.currency, sum(postings.amount) AS held
    FROM entries
    JOIN events
      ON events.shard = entries.shard
     AND events.seq = entries.event_seq
    JOIN postings
      ON postings.shard = entries.shard
     AND postings.seq = entries.seq
     AND (postings.amount > 0) = (entries.kind IN ('dispute_opened', 'dispute_reopened'))
    JOIN accounts
      ON accounts.shard = postings.shard
     AND accounts.account_id = postings.account_id
     AND accounts.name = 'platform:disputes_held'
    WHERE entries.kind IN ('dispute_opened', 'dispute_won', 'dispute_lost', 'dispute_reopened')
    GROUP BY 1, 2, 3, 4, 5
), kept AS (
    SELECT shard, tenant_id, COALESCE(provider, '') AS provider, dispute_id, currency, held
    FROM disputes
)
SELECT shard,
       tenant_id,
       format('dispute %s has %s %s held; its entries give %s', dispute_id, kept.held, currency, moved.held) AS fault
FROM kept
FULL JOIN moved USING (shard, tenant_id, provider, dispute_id, currency)
WHERE kept.held IS DISTINCT FROM moved.held
