-- All events and accounts of a tenant are on the tenant's shard; only what was refused may have come before the tenant
-- was registered.
WITH places AS (
    SELECT DISTINCT shard, tenant_id
    FROM events
    WHERE outcome <> 'rejected'
  UNION
    SELECT DISTINCT shard, tenant_id
    FROM accounts
)
SELECT places.shard,
       places.tenant_id,
       format('tenant %s has rows on shard %s; it lives on %s', places.tenant_id, places.shard,
           COALESCE(tenants.shard::text, 'none')) AS fault
FROM places
LEFT JOIN tenants USING (tenant_id)
WHERE tenants.shard IS DISTINCT FROM places.shard
