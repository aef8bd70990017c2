-- The outputs of events and dead letters number each shard from 1 to its last seq, without a gap and without an overlap.
WITH spans AS (
    SELECT shard, seq, outputs::bigint AS outputs
    FROM events
  UNION ALL
    SELECT shard, seq, 1
    FROM dead_letters
), ordered AS (
    SELECT shard, seq, lag(seq + outputs, 1, 1::bigint) OVER (PARTITION BY shard ORDER BY seq, outputs) AS expected
    FROM spans
)
SELECT shard,
       NULL::text AS tenant_id,
       format('shard %s goes on at seq %s where %s is the next', shard, seq, expected) AS fault
FROM ordered
WHERE seq <> expected
UNION ALL
SELECT shards.shard,
       NULL,
       format('shard %s says its next seq is %s; its journal ends before %s', shards.shard, shards.next_seq,
           COALESCE(ends.next_seq, 1))
FROM shards
LEFT JOIN (
    SELECT shard, max(seq + outputs) AS next_seq
    FROM spans
    GROUP BY shard
) AS ends USING (shard)
WHERE shards.next_seq <> COALESCE(ends.next_seq, 1)
