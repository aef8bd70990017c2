"""Settings are environment variables `LEDGER_…`, read once, here."""

from __future__ import annotations

import difflib
import logging
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

log = logging.getLogger(__name__)


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it, the fault and the way out. Exit code 2."""


SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
TenantsMode = Literal["open", "registered"]
StackKind = Literal["embedded", "containers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can set. Times in seconds unless the name says otherwise."""

    database_url: str | None = None
    kafka_bootstrap: str | None = None
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    kafka_sasl_mechanism: str = "PLAIN"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: str | None = field(default=None, repr=False)
    kafka_ssl_cafile: str | None = None
    kafka_ssl_certfile: str | None = None
    kafka_ssl_keyfile: str | None = None
    kafka_replication_factor: int = 1
    topic_prefix: str = "ledger."
    shards: int = 4
    group_id: str = "ledgerstream"
    client_id: str = ""
    stack: StackKind = "embedded"
    data: str | None = None
    tenants: TenantsMode = "open"
    parking_patience: float = 86_400.0
    hold_expiry: float = 604_800.0
    expense_category_resolver: str | None = None
    line_of_credit_resolver: str | None = None
    resolver_timeout: float = 0.05
    batch_rows_max: int = 1_000
    batch_timeout_ms: int = 10
    batch_seconds_max: float = 0.01
    accounts_cached_max: int = 50_000
    database_pool_max: int = 8
    relay_transaction_rows_max: int = 20_000
    relay_poll_seconds: float = 0.2
    outbox_retention_days: float = 7.0
    partition_rows: int = 5_000_000
    log_format: Literal["text", "json"] = "text"
    log_level: str = "INFO"

    @property
    def asyncpg_dsn(self) -> str:
        """`database_url` for asyncpg: SQLAlchemy's `+asyncpg` is taken off."""
        return self.need_database_url().replace("postgresql+asyncpg://", "postgresql://", 1)

    def need_database_url(self) -> str:
        if self.database_url is None:
            raise SettingsError(
                'LEDGER_DATABASE_URL is not set; run "ledgerstream stack up" and eval "$(ledgerstream stack env)", '
                "or see docs/operating.md, Settings"
            )
        return self.database_url

    def need_kafka_bootstrap(self) -> str:
        if self.kafka_bootstrap is None:
            raise SettingsError(
                'LEDGER_KAFKA_BOOTSTRAP is not set; run "ledgerstream stack up" and eval "$(ledgerstream stack env)", '
                "or see docs/operating.md, Settings"
            )
        return self.kafka_bootstrap

    def topic(self, name: str) -> str:
        """The full name of a topic of the contract: `topic("payments")` is `ledger.payments` by default."""
        return f"{self.topic_prefix}{name}"

    def group(self, stream: str) -> str:
        """One consumer group a stream."""
        return f"{self.group_id}.{stream}"


_CHOICES: dict[str, tuple[str, ...]] = {
    "kafka_security_protocol": get_args(SecurityProtocol),
    "tenants": get_args(TenantsMode),
    "stack": get_args(StackKind),
    "log_format": ("text", "json"),
}
_MINIMUM: dict[str, float] = {
    "shards": 1,
    "batch_rows_max": 1,
    "batch_timeout_ms": 1,
    "batch_seconds_max": 0.001,
    "parking_patience": 1,
    "resolver_timeout": 0.001,
    "database_pool_max": 2,
    "partition_rows": 1_000,
    "kafka_replication_factor": 1,
    "relay_transaction_rows_max": 1,
}
_MAXIMUM: dict[str, float] = {
    "shards": 1_024,
    "batch_rows_max": 10_000,
    "kafka_replication_factor": 9,
    "resolver_timeout": 60,
}


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    Raises: SettingsError, naming the first variable that is wrong or misspelt.
    """
    environ = os.environ if environ is None else environ
    known = {f"LEDGER_{f.name.upper()}": f for f in fields(Settings)}
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if not variable.startswith("LEDGER_"):
            continue
        if variable not in known:
            _refuse_misspelt(variable, known)
            continue
        if text == "":
            continue
        name = known[variable].name
        values[name] = _value_of(variable, name, str(known[variable].type), text)
    settings = Settings(**values)  # type: ignore[arg-type]
    if not settings.client_id:
        # Unique per process: it makes the same partitions of all streams land on one worker.
        object.__setattr__(settings, "client_id", f"ledgerstream-{socket.gethostname()}-{os.getpid()}")
    return settings


def _refuse_misspelt(variable: str, known: Collection[str]) -> None:
    """Refuse a variable that looks like a setting; one of another version's, or of something else's, is passed over."""
    meant = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
    if meant:
        raise SettingsError(f"{variable} is not a setting of ledgerstream; did you mean {meant[0]}?")
    log.warning("%s is not a setting of this ledgerstream and is ignored; see docs/operating.md, Settings", variable)


def _value_of(variable: str, name: str, type_name: str, text: str) -> object:
    value: object = text
    if type_name in ("int", "float"):
        try:
            value = int(text) if type_name == "int" else float(text)
        except ValueError:
            raise SettingsError(
                f"{variable} is {text!r}, which is not a number; see docs/operating.md, Settings"
            ) from None
        low, high = _MINIMUM.get(name, 0), _MAXIMUM.get(name, float("inf"))
        if not low <= float(text) <= high:
            raise SettingsError(
                f"{variable} is {text}; it must be at least {low:g}"
                + (f" and at most {high:g}" if high < float("inf") else "")
            )
    if name in _CHOICES and value not in _CHOICES[name]:
        raise SettingsError(f"{variable} is {text!r}; it must be one of {', '.join(_CHOICES[name])}")
    return value
