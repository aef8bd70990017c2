-- Each payout has the amount of its entry, and has failed exactly if an entry took it back.
WITH moved AS (
    SELECT events.shard, events.tenant_id, COALESCE(events.data::jsonb ->> 'provider', '') AS provider,
           entries.payout_id,
           sum(postings.amount) FILTER (WHERE entries.kind = 'payout') AS amount,
           bool_or(entries.kind = 'payout_failed') AS failed
    FROM entries
    JOIN events
      ON events.shard = entries.shard
     AND events.seq = entries.event_seq
    JOIN postings
      ON postings.shard = entries.shard
     AND postings.seq = entries.seq
     AND postings.amount > 0
    WHERE entries.kind IN ('payout', 'payout_failed')
    GROUP BY 1, 2, 3, 4
), kept AS (
    SELECT shard, tenant_id, COALESCE(provider, '') AS provider, payout_id, amount, failed
    FROM payouts
)
SELECT shard,
       tenant_id,
       format('payout %s is of %s, failed: %s; its entries give %s, failed: %s', payout_id, kept.amount, kept.failed,
           moved.amount, moved.failed) AS fault
FROM kept
FULL JOIN moved USING (shard, tenant_id, provider, payout_id)
WHERE kept.amount IS DISTINCT FROM moved.amount
   OR kept.failed IS DISTINCT FROM moved.failed
