-- All that went out together was recorded at one time: that of its outbox row.
WITH marks AS (
    SELECT shard, seq_first AS seq, 0 AS place, recorded_at, seq_last
    FROM outbox
  UNION ALL
    SELECT shard, seq, 1, recorded_at, NULL
    FROM events
  UNION ALL
    SELECT shard, seq, 1, recorded_at, NULL
    FROM dead_letters
), numbered AS (
    SELECT *, count(seq_last) OVER (PARTITION BY shard ORDER BY seq, place) AS batch
    FROM marks
), batches AS (
    SELECT *,
           first_value(recorded_at) OVER begun AS batch_recorded_at,
           first_value(seq_last) OVER begun AS batch_last
    FROM numbered
    WHERE batch > 0
    WINDOW begun AS (PARTITION BY shard, batch ORDER BY seq, place)
)
SELECT shard,
       NULL::text AS tenant_id,
       format('what is at seq %s of shard %s was recorded at %s; the outbox row to seq %s, which has it, at %s', seq, shard,
           recorded_at, batch_last, batch_recorded_at) AS fault
FROM batches
WHERE place = 1
  AND seq <= batch_last
  AND recorded_at <> batch_recorded_at
