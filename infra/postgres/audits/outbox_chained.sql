-- The outbox goes on without a gap to the last seq and the head of its shard, and begins no later than what was relayed.
WITH ordered AS (
    SELECT shard, seq_first, seq_last, head_hash,
           lag(seq_last) OVER (PARTITION BY shard ORDER BY seq_last) AS seq_before
    FROM outbox
), ends AS (
    SELECT DISTINCT ON (shard) shard, seq_last, head_hash
    FROM outbox
    ORDER BY shard, seq_last DESC
)
SELECT ordered.shard,
       NULL::text AS tenant_id,
       format('the outbox of shard %s goes on at seq %s after %s', ordered.shard, ordered.seq_first,
           COALESCE(ordered.seq_before, relayed.seq, 0)) AS fault
FROM ordered
LEFT JOIN relayed USING (shard)
WHERE ordered.seq_first <> ordered.seq_before + 1
   OR (ordered.seq_before IS NULL AND ordered.seq_first > COALESCE(relayed.seq, 0) + 1)
UNION ALL
SELECT shards.shard,
       NULL,
       format('the outbox of shard %s ends at seq %s; the shard is at %s%s, and %s is relayed', shards.shard,
           COALESCE(ends.seq_last::text, 'none'), shards.next_seq - 1,
           CASE WHEN ends.head_hash <> shards.head_hash THEN ' with another head' ELSE '' END,
           COALESCE(relayed.seq, 0))
FROM shards
LEFT JOIN ends USING (shard)
LEFT JOIN relayed USING (shard)
WHERE COALESCE(ends.seq_last, shards.next_seq - 1) <> shards.next_seq - 1
   OR ends.head_hash <> shards.head_hash
   OR (ends.seq_last IS NULL AND COALESCE(relayed.seq, 0) < shards.next_seq - 1)
   OR COALESCE(relayed.seq, 0) > shards.next_seq - 1
