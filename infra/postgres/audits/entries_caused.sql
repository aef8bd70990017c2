-- Each entry was made by an applied event of its tenant, among its outputs; each applied money event made an entry.
SELECT entries.shard,
       entries.tenant_id,
       format('entry %s was made by no applied event at seq %s', entries.entry_id, entries.event_seq) AS fault
FROM entries
LEFT JOIN events
       ON events.shard = entries.shard
      AND events.seq = entries.event_seq
WHERE events.seq IS NULL
   OR events.outcome <> 'applied'
   OR events.tenant_id <> entries.tenant_id
   OR events.recorded_at <> entries.recorded_at
   OR entries.seq NOT BETWEEN events.seq AND events.seq + events.outputs - 1
UNION ALL
SELECT events.shard,
       events.tenant_id,
       format('the %s at seq %s is applied and made no entry', events.type, events.seq)
FROM events
LEFT JOIN entries
       ON entries.shard = events.shard
      AND entries.event_seq = events.seq
WHERE events.outcome = 'applied'
  AND events.type ~ '^(payment|refund|transfer|payout|dispute)[.]'
  AND entries.seq IS NULL
