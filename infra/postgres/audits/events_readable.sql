-- What each event said is a JSON object.
SELECT shard,
       tenant_id,
       format('what the event at seq %s of shard %s said is no JSON object', seq, shard) AS fault
FROM events
WHERE data IS NOT JSON OBJECT
