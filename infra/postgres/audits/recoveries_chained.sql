-- Each later epoch of a shard begins no earlier than the one before it, at the head and the time that the outbox has
-- there, and the last is the shard's.
WITH ordered AS (
    SELECT shard, epoch, next_seq, outputs_from, head_hash, recorded_at,
           lag(next_seq, 1, 1::bigint) OVER earlier AS next_seq_before,
           min(outputs_from) OVER (PARTITION BY shard ORDER BY epoch ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
               AS outputs_from_later
    FROM recoveries
    WINDOW earlier AS (PARTITION BY shard ORDER BY epoch)
), lasts AS (
    SELECT shard, max(epoch) AS epoch
    FROM recoveries
    GROUP BY shard
)
SELECT ordered.shard,
       NULL::text AS tenant_id,
       format('recoveries (shard %s, epoch %s) begins at seq %s, after one that begins at seq %s, in a shard that is at'
           ' seq %s; at the output before it the outbox has %s', ordered.shard, ordered.epoch, ordered.next_seq,
           ordered.next_seq_before, shards.next_seq - 1, CASE
               WHEN outbox.head_hash <> ordered.head_hash THEN 'another head'
               WHEN outbox.recorded_at <> ordered.recorded_at THEN 'another time'
               ELSE 'the same head and time'
           END) AS fault
FROM ordered
LEFT JOIN shards
       ON shards.shard = ordered.shard
LEFT JOIN outbox
       ON outbox.shard = ordered.shard
      AND outbox.seq_last = ordered.outputs_from - 1
WHERE ordered.next_seq < ordered.next_seq_before
   OR ordered.next_seq > shards.next_seq
   OR (ordered.outputs_from <= COALESCE(ordered.outputs_from_later, ordered.outputs_from)
       AND (outbox.head_hash <> ordered.head_hash OR outbox.recorded_at <> ordered.recorded_at))
UNION ALL
SELECT COALESCE(shards.shard, lasts.shard),
       NULL,
       format('shard %s is of epoch %s; its last recovery began epoch %s', COALESCE(shards.shard, lasts.shard),
           COALESCE(shards.epoch::text, 'none'), COALESCE(lasts.epoch, 1))
FROM shards
FULL JOIN lasts
  ON lasts.shard = shards.shard
WHERE shards.epoch IS DISTINCT FROM COALESCE(lasts.epoch, 1)
