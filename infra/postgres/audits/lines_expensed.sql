-- What is expensed of each line of credit is what it began with and what its card payments have of it; one that was
-- reset began anew.
WITH begun AS (
    SELECT shard, tenant_id, data::jsonb ->> 'line_of_credit_id' AS line_of_credit_id,
           COALESCE((data::jsonb ->> 'expensed_credits')::numeric, 0) AS expensed
    FROM events
    WHERE type = 'line_of_credit.create.v1'
      AND outcome = 'applied'
), reset AS (
    SELECT DISTINCT shard, tenant_id, data::jsonb ->> 'line_of_credit_id' AS line_of_credit_id
    FROM events
    WHERE type = 'line_of_credit.reset.v1'
      AND outcome = 'applied'
), spent AS (
    SELECT shard, tenant_id, line_of_credit_id, sum(expensed) AS expensed
    FROM authorizations
    CROSS JOIN LATERAL unnest(lines) AS line (line_of_credit_id)
    GROUP BY shard, tenant_id, line_of_credit_id
), kept AS (
    SELECT shard, tenant_id, line_of_credit_id, expensed_credits
    FROM lines_of_credit
)
SELECT shard,
       tenant_id,
       format('line of credit %s has %s expensed; it began with %s, and its card payments have %s', line_of_credit_id,
           COALESCE(kept.expensed_credits::text, 'nothing'), COALESCE(begun.expensed::text, 'nothing'),
           COALESCE(spent.expensed, 0)) AS fault
FROM kept
FULL JOIN begun USING (shard, tenant_id, line_of_credit_id)
FULL JOIN spent USING (shard, tenant_id, line_of_credit_id)
LEFT JOIN (
    SELECT shard, tenant_id, line_of_credit_id, true AS anew
    FROM reset
) AS reset USING (shard, tenant_id, line_of_credit_id)
WHERE kept.expensed_credits IS NULL
   OR begun.expensed IS NULL
   OR (reset.anew IS NULL AND kept.expensed_credits <> begun.expensed + COALESCE(spent.expensed, 0))
