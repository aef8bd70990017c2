-- Each entry's id says where the entry stands: epoch, shard and seq are in its bits (domain/ids.py).
WITH bits AS (
    SELECT shard, tenant_id, entry_id, seq,
           ('x' || substr(hex, 1, 4))::bit(16)::integer AS id_epoch,
           ('x' || substr(hex, 5, 4))::bit(16)::integer AS id_shard,
           ('x' || substr(hex, 9, 4))::bit(16)::bigint AS seq_high,
           ('x' || substr(hex, 14, 3))::bit(12)::bigint AS seq_middle,
           ('x' || substr(hex, 17, 16))::bit(64)::bigint AS low
    FROM entries
    CROSS JOIN LATERAL (SELECT replace(entry_id::text, '-', '') AS hex) AS digits
)
SELECT bits.shard,
       bits.tenant_id,
       format('entry %s stands at shard %s, seq %s, which is not what its id says', bits.entry_id, bits.shard, bits.seq)
           AS fault
FROM bits
JOIN shards ON shards.shard = bits.shard
WHERE bits.id_epoch NOT BETWEEN 1 AND shards.epoch
   OR bits.id_shard <> bits.shard
   OR ((seq_high << 40) | (seq_middle << 28) | ((low >> 34) & 268435455)) <> bits.seq
   OR low & 17179869183 <> 0
