-- Each transfer has the amount of its entry, and what was reversed of it is the sum of its reversals.
WITH moved AS (
    SELECT events.shard, events.tenant_id, COALESCE(events.data::jsonb ->> 'provider', '') AS provider,
           entries.transfer_id,
           sum(postings.amount) FILTER (WHERE entries.kind = 'transfer') AS amount,
           COALESCE(sum(postings.amount) FILTER (WHERE entries.kind = 'transfer_reversed'), 0) AS reversed
    FROM entries
    JOIN events
      ON events.shard = entries.shard
     AND events.seq = entries.event_seq
    JOIN postings
      ON postings.shard = entries.shard
     AND postings.seq = entries.seq
     AND postings.amount > 0
    WHERE entries.kind IN ('transfer', 'transfer_reversed')
    GROUP BY 1, 2, 3, 4
), kept AS (
    SELECT shard, tenant_id, COALESCE(provider, '') AS provider, transfer_id, amount, reversed
    FROM transfers
)
SELECT shard,
       tenant_id,
       format('transfer %s is of %s with %s reversed; its entries give %s and %s', transfer_id, kept.amount,
           kept.reversed, moved.amount, moved.reversed) AS fault
FROM kept
FULL JOIN moved USING (shard, tenant_id, provider, transfer_id)
WHERE kept.amount IS DISTINCT FROM moved.amount
   OR kept.reversed IS DISTINCT FROM moved.reversed
