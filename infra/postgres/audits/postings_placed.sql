-- Each posting is on an account of its entry's tenant, and effective when its entry is.
SELECT postings.shard,
       entries.tenant_id,
       format('leg %s of entry %s is %s', postings.leg, entries.entry_id, CASE
           WHEN accounts.account_id IS NULL THEN 'on no account'
           WHEN accounts.tenant_id <> entries.tenant_id THEN 'on an account of tenant ' || accounts.tenant_id
           ELSE 'effective at another time'
       END) AS fault
FROM postings
JOIN entries USING (shard, seq)
LEFT JOIN accounts
       ON accounts.shard = postings.shard
      AND accounts.account_id = postings.account_id
WHERE accounts.account_id IS NULL
   OR accounts.tenant_id <> entries.tenant_id
   OR postings.effective_at <> entries.effective_at
