-- Each key was claimed by an event or a dead letter that is in the journal, and each of those has claimed one.
-- An event that was taken up again kept the key of its parking.
SELECT keys.shard,
       NULL::text AS tenant_id,
       format('key %s points to seq %s of shard %s, where neither an event nor a dead letter is', keys.key, keys.seq,
           keys.shard) AS fault
FROM idempotency_keys AS keys
LEFT JOIN events
       ON events.shard = keys.shard
      AND events.seq = keys.seq
LEFT JOIN dead_letters
       ON dead_letters.shard = keys.shard
      AND dead_letters.seq = keys.seq
WHERE events.seq IS NULL
  AND dead_letters.seq IS NULL
UNION ALL
SELECT dead_letters.shard,
       NULL,
       format('the dead letter at seq %s of shard %s has no key', dead_letters.seq, dead_letters.shard)
FROM dead_letters
LEFT JOIN idempotency_keys AS keys
       ON keys.shard = dead_letters.shard
      AND keys.seq = dead_letters.seq
WHERE keys.seq IS NULL
UNION ALL
SELECT events.shard,
       events.tenant_id,
       format('the %s at seq %s of shard %s has no key', events.type, events.seq, events.shard)
FROM events
LEFT JOIN idempotency_keys AS keys
       ON keys.shard = events.shard
      AND keys.seq = events.seq
WHERE events.resumes IS NULL
  AND keys.seq IS NULL
