-- What a posting says was posted after its event is the fold of all postings up to its version.
WITH folded AS (
    SELECT postings.shard, entries.tenant_id, entries.entry_id, postings.leg, postings.posted_after,
           sum(CASE WHEN entries.pending THEN 0 ELSE postings.amount END)
               OVER (PARTITION BY postings.shard, postings.account_id, postings.currency ORDER BY postings.version)
               AS folded_after
    FROM postings
    JOIN entries USING (shard, seq)
)
SELECT shard,
       tenant_id,
       format('leg %s of entry %s says %s was posted after it; the postings give %s', leg, entry_id, posted_after,
           folded_after) AS fault
FROM folded
WHERE posted_after <> folded_after
