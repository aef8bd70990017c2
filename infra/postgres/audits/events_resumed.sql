-- An event that was taken up again is the one that was parked, word for word.
SELECT again.shard,
       again.tenant_id,
       format('the event at seq %s of shard %s is not the one that was parked at seq %s', again.seq, again.shard,
           again.resumes) AS fault
FROM events AS again
JOIN events AS before
  ON before.shard = again.shard
 AND before.seq = again.resumes
WHERE again.resumes IS NOT NULL
  AND (again.tenant_id, again.type, again.source, again.event_id, again.occurred_at, again.fingerprint, again.data,
       COALESCE(again.idempotency_key, ''), COALESCE(again.traceparent, ''), COALESCE(again.topic, ''),
       COALESCE(again.partition, -1), COALESCE(again."offset", -1))
   <> (before.tenant_id, before.type, before.source, before.event_id, before.occurred_at, before.fingerprint,
       before.data, COALESCE(before.idempotency_key, ''), COALESCE(before.traceparent, ''), COALESCE(before.topic, ''),
       COALESCE(before.partition, -1), COALESCE(before."offset", -1))
