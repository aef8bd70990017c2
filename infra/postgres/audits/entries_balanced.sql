-- Each entry's postings sum to zero per currency.
SELECT unbalanced.shard,
       entries.tenant_id,
       format('entry %s sums to %s %s', entries.entry_id, unbalanced.total, unbalanced.currency) AS fault
FROM (
    SELECT shard, seq, currency, sum(amount) AS total
    FROM postings
    GROUP BY shard, seq, currency
    HAVING sum(amount) <> 0
) AS unbalanced
JOIN entries USING (shard, seq)
