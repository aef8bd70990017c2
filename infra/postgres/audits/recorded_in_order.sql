-- recorded_at never goes back within a shard, and no row is younger than the shard says.
WITH handled AS (
    SELECT shard, seq, recorded_at
    FROM events
  UNION ALL
    SELECT shard, seq, recorded_at
    FROM dead_letters
), ordered AS (
    SELECT shard, seq, recorded_at, lag(recorded_at) OVER (PARTITION BY shard ORDER BY seq) AS recorded_before
    FROM handled
)
SELECT ordered.shard,
       NULL::text AS tenant_id,
       format('what is at seq %s of shard %s was recorded at %s, before what it follows or after the shard''s last time',
           ordered.seq, ordered.shard, ordered.recorded_at) AS fault
FROM ordered
JOIN shards USING (shard)
WHERE ordered.recorded_at < ordered.recorded_before
   OR ordered.recorded_at > shards.last_recorded_at
