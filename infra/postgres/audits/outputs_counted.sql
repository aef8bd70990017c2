-- An event has the outputs that follow from it: its entries, a change for each balance, a result if it was a request,
-- how its authorization stands if it was about one; and one if it was not applied.
WITH moved AS (
    SELECT entries.shard, entries.event_seq, entries.seq, postings.account_id, postings.currency
    FROM entries
    JOIN postings USING (shard, seq)
  UNION ALL
    SELECT shard, seq, NULL, account_id, currency
    FROM hold_changes
), changes AS (
    SELECT shard, event_seq, count(DISTINCT seq) + count(DISTINCT (account_id, currency)) AS outputs
    FROM moved
    GROUP BY shard, event_seq
)
SELECT events.shard,
       events.tenant_id,
       format('the %s at seq %s has %s outputs and should have %s', events.type, events.seq, events.outputs,
           expected.outputs) AS fault
FROM events
LEFT JOIN changes
       ON changes.shard = events.shard
      AND changes.event_seq = events.seq
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN events.outcome <> 'applied' THEN 1
        ELSE COALESCE(changes.outputs, 0)
            + CASE WHEN events.type ~ '^(payment|refund|transfer|payout|dispute)[.]' THEN 0 ELSE 1 END
    END AS outputs
) AS expected
WHERE events.outputs <> expected.outputs
