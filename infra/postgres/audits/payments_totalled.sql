-- What was captured of each payment is what its entries brought in; what was refunded, its refunds that did not fail.
WITH captured AS (
    SELECT events.shard, events.tenant_id, COALESCE(events.data::jsonb ->> 'provider', '') AS provider,
           entries.payment_id, postings.currency, events.data::jsonb ->> 'customer_id' AS customer_id,
           sum(postings.amount) AS amount
    FROM entries
    JOIN events
      ON events.shard = entries.shard
     AND events.seq = entries.event_seq
    JOIN postings
      ON postings.shard = entries.shard
     AND postings.seq = entries.seq
    JOIN accounts
      ON accounts.shard = postings.shard
     AND accounts.account_id = postings.account_id
     AND accounts.type = 'asset'
    WHERE entries.kind = 'payment'
    GROUP BY 1, 2, 3, 4, 5, 6
), refunded AS (
    SELECT shard, payment_key, currency, customer_id, sum(amount) AS amount
    FROM refunds
    WHERE payment_key IS NOT NULL
      AND NOT failed
    GROUP BY shard, payment_key, currency, customer_id
), kept AS (
    SELECT shard, tenant_id, COALESCE(provider, '') AS provider, payment_id, currency, customer_id, captured, refunded,
           COALESCE(refunded.amount, 0) AS refunds, payments.payment_key IS NOT NULL AS found
    FROM payments
    FULL JOIN refunded USING (shard, payment_key, currency, customer_id)
)
SELECT shard,
       tenant_id,
       format('payment %s of customer %s has %s %s captured and %s refunded; its entries give %s and %s', payment_id,
           customer_id, COALESCE(kept.captured, 0), currency, COALESCE(kept.refunded, 0),
           COALESCE(captured.amount, 0), COALESCE(kept.refunds, 0)) AS fault
FROM kept
FULL JOIN captured USING (shard, tenant_id, provider, payment_id, currency, customer_id)
WHERE kept.found IS NOT TRUE
   OR kept.captured IS DISTINCT FROM captured.amount
   OR kept.refunded <> kept.refunds
