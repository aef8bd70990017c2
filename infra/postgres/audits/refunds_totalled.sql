-- Each refund has the amount of its entry, and has failed exactly if an entry took it back.
WITH moved AS (
    SELECT events.shard, events.tenant_id, COALESCE(events.data::jsonb ->> 'provider', '') AS provider,
           entries.refund_id,
           sum(postings.amount) FILTER (WHERE entries.kind = 'refund') AS amount,
           bool_or(entries.kind = 'refund_failed') AS failed
    FROM entries
    JOIN events
      ON events.shard = entries.shard
     AND events.seq = entries.event_seq
    JOIN postings
      ON postings.shard = entries.shard
     AND postings.seq = entries.seq
     AND postings.amount > 0
    WHERE entries.kind IN ('refund', 'refund_failed')
    GROUP BY 1, 2, 3, 4
), kept AS (
    SELECT shard, tenant_id, COALESCE(provider, '') AS provider, refund_id, amount, failed
    FROM refunds
)
SELECT shard,
       tenant_id,
       format('refund %s is of %s, failed: %s; its entries give %s, failed: %s', refund_id, kept.amount, kept.failed,
           moved.amount, moved.failed) AS fault
FROM kept
FULL JOIN moved USING (shard, tenant_id, provider, refund_id)
WHERE kept.amount IS DISTINCT FROM moved.amount
   OR kept.failed IS DISTINCT FROM moved.failed
