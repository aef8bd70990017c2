"""Prove the books: every rule that must hold between rows, each checked over all of them, in one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TypedDict

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.postgres.queries_places import find_shard
from infra.postgres.reading import sqlstate_of
from infra.postgres.verify_outbox import outbox_faults

_AUDITS = Path(__file__).parent / "audits"
FAULTS_SHOWN = 3
OUTBOX_CHECK = "outbox_told"
_OUTBOX_PROMISE = "Each output that is kept can be read, stands at its place, and says what the journal says."


class Check(TypedDict):
    """One audit: `rows` is how many rows break it, `detail` names the first few, or what the audit holds."""

    check: str
    ok: bool
    rows: int
    detail: str


# Reads look things up; an audit goes over everything, and may take the memory for it. Each join stands in its audit
# with its whole key, and is made as a hash join in the order in which it is written, so nothing depends on statistics.
# Where one row is expected of each table (never analyzed, or analyzed while nearly empty) Postgres would otherwise join
# two of them on `shard` alone before the third, which makes all pairs of their rows.
_FOR_WHOLE_TABLES = (
    "SET LOCAL enable_seqscan = on",
    "SET LOCAL enable_hashjoin = on",
    "SET LOCAL enable_mergejoin = off",
    "SET LOCAL enable_nestloop = off",
    "SET LOCAL join_collapse_limit = 1",
    "SET LOCAL from_collapse_limit = 1",
    "SET LOCAL work_mem = '64MB'",
)

# An audit gives a row (shard, tenant_id, fault) for each fault; tenant_id is null where a whole shard is concerned.
_BEFORE = "SELECT fault, count(*) OVER () AS faults FROM ("
_AFTER = """) AS audit
WHERE CAST(:tenant_id AS text) IS NULL
   OR (audit.shard = :shard AND COALESCE(audit.tenant_id, :tenant_id) = :tenant_id)
ORDER BY audit.shard, audit.fault
LIMIT :shown"""


def audit_names() -> list[str]:
    """The audits there are, by name."""
    return sorted(path.stem for path in _AUDITS.glob("*.sql"))


async def verify(
    connection: AsyncConnection, tenant_id: str | None = None, *, deep: bool = False
) -> AsyncIterator[Check]:
    """Run every audit, over all tenants or one and what its shard has in common, and say what each found.

    `deep` reads every output that is still kept, too. Shape: one check per audit, as they end.
    Raises: NotFound for an unknown tenant.
    """
    shard = None if tenant_id is None else await find_shard(connection, tenant_id)
    for setting in _FOR_WHOLE_TABLES:
        await connection.execute(text(setting))
    for name in audit_names():
        yield await _run(connection, name, tenant_id, shard)
    if deep:
        faults = await outbox_faults(connection, shard)
        yield check_of(OUTBOX_CHECK, faults, _OUTBOX_PROMISE)


async def _run(connection: AsyncConnection, name: str, tenant_id: str | None, shard: int | None) -> Check:
    audit = (_AUDITS / f"{name}.sql").read_text()
    promise = " ".join(line[3:] for line in audit.splitlines() if line.startswith("-- "))
    try:
        async with connection.begin_nested():
            found = await connection.execute(
                text(_BEFORE + audit + _AFTER), {"tenant_id": tenant_id, "shard": shard, "shown": FAULTS_SHOWN}
            )
            faults = found.all()
    except DBAPIError as error:
        # A row that can't be read or counted with; `events_readable` names it where it is what an event said.
        if not (sqlstate_of(error) or "").startswith("22"):
            raise
        return _check(name, 1, [f"not checked: a row can't be read ({error.orig})"], promise)
    return _check(name, faults[0].faults if faults else 0, [row.fault for row in faults], promise)


def check_of(name: str, faults: Sequence[str], promise: str) -> Check:
    """A check of which all faults are known; without any its detail is what it promises."""
    return _check(name, len(faults), faults, promise)


def _check(name: str, rows: int, faults: Sequence[str], promise: str) -> Check:
    detail = "; ".join(faults[:FAULTS_SHOWN]) + (" …" if rows > FAULTS_SHOWN else "")
    return {"check": name, "ok": not rows, "rows": rows, "detail": detail or promise}
