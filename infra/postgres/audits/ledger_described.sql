-- The ledger has the shards that it was made with, and what was relayed is of one of them.
SELECT COALESCE(shards.shard, made.shard) AS shard,
       NULL::text AS tenant_id,
       format('the ledger was made with %s shards; shard %s is %s', (SELECT shards FROM ledger),
           COALESCE(shards.shard, made.shard), CASE WHEN shards.shard IS NULL THEN 'missing' ELSE 'one too many' END)
           AS fault
FROM shards
FULL JOIN (
    SELECT generate_series(0, shards - 1)::smallint AS shard
    FROM ledger
) AS made
  ON made.shard = shards.shard
WHERE shards.shard IS NULL
   OR made.shard IS NULL
UNION ALL
SELECT relayed.shard,
       NULL,
       format('relayed has a row of shard %s, which is not there', relayed.shard)
FROM relayed
LEFT JOIN shards
       ON shards.shard = relayed.shard
WHERE shards.shard IS NULL
