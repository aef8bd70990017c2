"""The topics, by short name: which way they go, what is on them, and the broker settings they are made with.

Every topic has as many partitions as the ledger has shards. The full name is the setting LEDGER_TOPIC_PREFIX and the
short name: `ledger.payments`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from schemas.registry import EVENT_TYPES, OUTPUT_TYPES

MEBIBYTE = 1024 * 1024
_DAY_MS = 24 * 60 * 60 * 1000
_FOR_EVER = "-1"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. Shape: `config` as the broker takes it, names and values as text."""

    name: str
    direction: Literal["in", "out"]
    description: str
    key: str
    config: Mapping[str, str]

    @property
    def types(self) -> tuple[str, ...]:
        """The types of event that belong here, in the order of the contract; none for dead letters."""
        known: Mapping[str, object] = EVENT_TYPES if self.direction == "in" else OUTPUT_TYPES
        return tuple(name for name in known if _topic_of(name) == self.name)

    @property
    def max_message_bytes(self) -> int:
        """The largest record batch that the broker takes on this topic."""
        return int(self.config["max.message.bytes"])


def _topic_of(event_type: str) -> str:
    known = EVENT_TYPES.get(event_type)
    return known.topic if known else OUTPUT_TYPES[event_type].topic


def _input(name: str, description: str) -> Topic:
    config = {
        "cleanup.policy": "delete",
        # A record that unpacks to a hundred times its size would take a consumer down; so the broker itself unpacks,
        # and refuses.
        "compression.type": "uncompressed",
        # Over the 1 MiB that is read, so that too large a record can arrive to be told so.
        "max.message.bytes": str(2 * MEBIBYTE),
        "retention.ms": str(30 * _DAY_MS),
    }
    return Topic(name, "in", description, "{tenantid}", MappingProxyType(config))


def _output(name: str, description: str, key: str, **config: str) -> Topic:
    settings = {"cleanup.policy": "delete", "max.message.bytes": str(2 * MEBIBYTE), "retention.ms": str(30 * _DAY_MS)}
    # A record's time is that of its row, which never goes back: after a clock that ran an hour ahead the broker would
    # refuse the shard's outputs until time has caught up.
    settings["message.timestamp.after.max.ms"] = str(2**63 - 1)
    settings |= {option.replace("_", "."): value for option, value in config.items()}
    return Topic(name, "out", description, key, MappingProxyType(settings))


_TOPICS = (
    _input("payments", "Payments that were captured."),
    _input("refunds", "Refunds that succeeded or failed."),
    _input("transfers", "Money that became a merchant's, or stopped being so."),
    _input("payouts", "Payouts to merchants that were paid or failed."),
    _input("disputes", "Disputes, from their opening to what came of them."),
    _input("authorizations", "Holds, and card payments that ask whether they may go ahead."),
    _input("commands", "Requests: accounts, entries, periods, categories, lines of credit, cards, tenants."),
    _output(
        "balances",
        "The balance of an account in a currency after each event; compacted to the last of each.",
        "{account_id}:{currency}",
        cleanup_policy="compact",
        retention_ms=_FOR_EVER,
    ),
    _output("entries", "Every entry that is made.", "{tenantid}"),
    _output("decisions", "What was decided on authorizations.", "{provider}:{external_id}"),
    _output("outcomes", "Events that were rejected or parked, commands that were applied.", "{tenantid}"),
    # The relay's own cursor and the anchor of the hash chain: a seal that is gone can't be made again.
    _output(
        "seals",
        "One seal for each range of outputs published.",
        "{shard}",
        retention_ms=_FOR_EVER,
        retention_bytes="-1",
    ),
    # A record of 2 MiB comes back here with headers of its own and of ours.
    _output(
        "dead-letters",
        "Records that were no events, byte for byte.",
        "the original key",
        retention_ms=_FOR_EVER,
        max_message_bytes=str(3 * MEBIBYTE),
    ),
)
TOPICS: Mapping[str, Topic] = MappingProxyType({topic.name: topic for topic in _TOPICS})
INPUT_TOPICS: tuple[str, ...] = tuple(topic.name for topic in _TOPICS if topic.direction == "in")
OUTPUT_TOPICS: tuple[str, ...] = tuple(topic.name for topic in _TOPICS if topic.direction == "out")
READ_TOPICS: tuple[str, ...] = tuple(name for name in INPUT_TOPICS if TOPICS[name].types)
"""The input topics that this version reads: what is on the others waits for a version that knows its types."""
