-- Each entry has two postings or more, numbered without a gap, and no posting is without an entry.
WITH legs AS (
    SELECT shard, seq, count(*) AS postings, max(leg) - min(leg) + 1 AS span
    FROM postings
    GROUP BY shard, seq
)
SELECT shard,
       entries.tenant_id,
       CASE
           WHEN entries.seq IS NULL THEN format('postings at seq %s have no entry', seq)
           ELSE format('entry %s has %s postings', entries.entry_id, COALESCE(legs.postings, 0))
       END AS fault
FROM entries
FULL JOIN legs USING (shard, seq)
WHERE entries.seq IS NULL
   OR COALESCE(legs.postings, 0) < 2
   OR legs.span <> legs.postings
