-- What a parked event waits for is there exactly if its turn is said to have come.
WITH there AS (
    SELECT parked.shard, parked.seq
    FROM payments JOIN parked ON parked.shard = payments.shard AND parked.waits_for = payments.payment_key
  UNION
    SELECT parked.shard, parked.seq
    FROM refunds JOIN parked ON parked.shard = refunds.shard AND parked.waits_for = refunds.refund_key
  UNION
    SELECT parked.shard, parked.seq
    FROM transfers JOIN parked ON parked.shard = transfers.shard AND parked.waits_for = transfers.transfer_key
  UNION
    SELECT parked.shard, parked.seq
    FROM payouts JOIN parked ON parked.shard = payouts.shard AND parked.waits_for = payouts.payout_key
  UNION
    SELECT parked.shard, parked.seq
    FROM disputes JOIN parked ON parked.shard = disputes.shard AND parked.waits_for = disputes.dispute_key
  UNION
    SELECT parked.shard, parked.seq
    FROM holds JOIN parked ON parked.shard = holds.shard AND parked.waits_for = holds.hold_key
  UNION
    SELECT parked.shard, parked.seq
    FROM authorizations AS paid JOIN parked ON parked.shard = paid.shard AND parked.waits_for = paid.authorization_key
    WHERE paid.status <> 'pending'
)
SELECT parked.shard,
       events.tenant_id,
       format('the event parked at seq %s of shard %s is marked as %s, and what it waits for is %s', parked.seq,
           parked.shard, CASE WHEN parked.arrived THEN 'free' ELSE 'waiting' END,
           CASE WHEN there.seq IS NULL THEN 'not there' ELSE 'there' END) AS fault
FROM parked
LEFT JOIN there
       ON there.shard = parked.shard
      AND there.seq = parked.seq
LEFT JOIN events
       ON events.shard = parked.shard
      AND events.seq = parked.seq
WHERE parked.arrived <> (there.seq IS NOT NULL)
