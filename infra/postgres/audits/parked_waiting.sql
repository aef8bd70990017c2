-- What is parked is exactly the events that were parked and have not been taken up again; each is taken up once.
WITH resumed AS (
    SELECT shard, resumes AS seq, count(*) AS times
    FROM events
    WHERE resumes IS NOT NULL
    GROUP BY shard, resumes
), journal AS (
    SELECT shard, seq, tenant_id
    FROM events
    WHERE outcome = 'parked'
      AND outcome <> 'applied'
)
SELECT shard,
       journal.tenant_id,
       format('the event at seq %s of shard %s is %s, was taken up %s times, and is %s', seq, shard,
           CASE WHEN journal.seq IS NULL THEN 'not one that was parked' ELSE 'one that was parked' END,
           COALESCE(resumed.times, 0),
           CASE WHEN parked.seq IS NULL THEN 'not waiting' ELSE 'waiting' END) AS fault
FROM journal
FULL JOIN resumed USING (shard, seq)
FULL JOIN parked USING (shard, seq)
WHERE journal.seq IS NULL
   OR COALESCE(resumed.times, 0) > 1
   OR (resumed.seq IS NULL) <> (parked.seq IS NOT NULL)
