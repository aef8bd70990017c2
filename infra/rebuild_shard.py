"""One shard of a ledger rebuilt in another database. Loads little: each process of a replay has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from infra.journal import Rebuilder, open_source, open_target
from infra.ledger import LedgerRules
from infra.outbox import TOPICS as OUTPUTS
from infra.postgres.load import ReadCommand
from infra.settings import Settings, SettingsError
from schemas.topics import TOPICS


@dataclass(frozen=True, slots=True)
class Plan:
    """Up to where each shard is rebuilt, and the partition counts of the output topics."""

    until: Mapping[int, int]
    partitions: Mapping[str, int]

    @property
    def outputs(self) -> int:
        return sum(self.until.values()) - len(self.until)


def target_of(settings: Settings, into: str) -> Settings:
    """The settings of the database that is rebuilt."""
    if into == settings.need_database_url():
        raise SettingsError("--into names the ledger itself; name another, empty database")
    return replace(settings, database_url=into)


async def rebuild_shard(
    settings: Settings, into: str, plan: Plan, rules: LedgerRules, read_command: ReadCommand, shard: int
) -> None:
    """Rebuild one shard, from where an earlier rebuild ended. Raises: JournalDifferenceError."""
    source = await open_source(settings.asyncpg_dsn)
    target = await open_target(target_of(settings, into).asyncpg_dsn)
    try:
        await Rebuilder(target, rules, read_command, shard).rebuild(source, plan.until[shard])
    finally:
        source.terminate()
        target.terminate()


def rules_of(settings: Settings, plan: Plan) -> LedgerRules:
    """The rules of the ledger that is rebuilt: those of the settings, which should be what they were."""
    return LedgerRules(
        shards=settings.shards,
        partitions=plan.partitions,
        value_bytes_max={name: TOPICS[name].max_message_bytes for name in OUTPUTS},
        registered_only=settings.tenants == "registered",
        patience_seconds=settings.parking_patience,
        hold_expiry_seconds=settings.hold_expiry,
        accounts_cached_max=settings.accounts_cached_max * settings.shards,
        group=settings.group_id,
    )
