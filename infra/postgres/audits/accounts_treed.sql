-- No account is its own ancestor, and each has the tenant of its parent.
WITH RECURSIVE above (shard, account_id, ancestor_id, tenant_id) AS (
    SELECT shard, account_id, parent_id, tenant_id
    FROM accounts
    WHERE parent_id IS NOT NULL
  UNION
    SELECT above.shard, above.account_id, accounts.parent_id, above.tenant_id
    FROM above
    JOIN accounts
      ON accounts.shard = above.shard
     AND accounts.account_id = above.ancestor_id
    WHERE accounts.parent_id IS NOT NULL
)
SELECT shard,
       tenant_id,
       format('account %s is its own ancestor', account_id) AS fault
FROM above
WHERE ancestor_id = account_id
UNION ALL
SELECT accounts.shard,
       accounts.tenant_id,
       format('account %s of tenant %s has a parent of tenant %s', accounts.name, accounts.tenant_id, parent.tenant_id)
FROM accounts
JOIN accounts AS parent
  ON parent.shard = accounts.shard
 AND parent.account_id = accounts.parent_id
WHERE parent.tenant_id <> accounts.tenant_id
