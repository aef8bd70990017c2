"""How this program connects to Kafka, and how it waits for one that is away."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import ssl
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.record import default_records

from infra.kafka import resets
from infra.patience import Patience
from infra.settings import Settings, SettingsError

PROBE_SECONDS = 5.0

# Whoever speaks to Kafka takes its arguments from here.
resets.fail_as_broken()


def client_arguments(settings: Settings) -> dict[str, Any]:
    """The arguments that every aiokafka client takes: where to, who we are, TLS and SASL.

    Raises: SettingsError, naming the variable that is missing or wrong.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.need_kafka_bootstrap(),
        "client_id": settings.client_id or "ledgerstream",
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol in ("SSL", "SASL_SSL"):
        arguments["ssl_context"] = ssl_context(settings)
    if settings.kafka_security_protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
            raise SettingsError(
                f"LEDGER_KAFKA_SECURITY_PROTOCOL is {settings.kafka_security_protocol}, which needs "
                "LEDGER_KAFKA_SASL_USERNAME and LEDGER_KAFKA_SASL_PASSWORD; set both"
            )
        arguments["sasl_mechanism"] = settings.kafka_sasl_mechanism
        arguments["sasl_plain_username"] = settings.kafka_sasl_username
        arguments["sasl_plain_password"] = settings.kafka_sasl_password
    return arguments


def ssl_context(settings: Settings) -> ssl.SSLContext:
    """TLS that checks the broker's certificate against `LEDGER_KAFKA_SSL_CAFILE`, or the system's authorities."""
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
    except OSError as fault:
        raise SettingsError(
            f"LEDGER_KAFKA_SSL_CAFILE is {settings.kafka_ssl_cafile!r}, which can't be read as certificates ({fault}); "
            "name a PEM file"
        ) from fault
    if settings.kafka_ssl_certfile is None:
        return context
    try:
        context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    except OSError as fault:
        raise SettingsError(
            f"LEDGER_KAFKA_SSL_CERTFILE {settings.kafka_ssl_certfile!r} and LEDGER_KAFKA_SSL_KEYFILE "
            f"{settings.kafka_ssl_keyfile!r} can't be read as a certificate and its key ({fault}); name PEM files"
        ) from fault
    return context


def check_libraries() -> None:
    """Refuse to start on an aiokafka that would be slow or would stall.

    Without its C extension aiokafka is fifty times slower; without cramjam a compressed topic stalls a consumer for
    ever, and says nothing.
    """
    if default_records.DefaultRecordBatchBuilder is default_records._DefaultRecordBatchBuilderPy:
        raise SettingsError(
            "aiokafka runs without its C extension (aiokafka.record._crecords); install its wheel for this platform "
            "and unset AIOKAFKA_NO_EXTENSIONS"
        )
    if importlib.util.find_spec("cramjam") is None:
        raise SettingsError("cramjam is not installed, so compressed topics can't be read; install cramjam")


def quiet_aiokafka(settings: Settings) -> None:
    """Keep aiokafka's own log to what the operator asked for with LEDGER_LOG_LEVEL=DEBUG.

    It writes an ERROR for each try to reach a broker; what it finds is said here, once per change.
    """
    if settings.log_level.upper() != "DEBUG":
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


async def wait_for_kafka(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Return when a broker answers, or when `stop` is set; says once why it waits.

    Raises: SettingsError when the settings can't be right, whatever Kafka does.
    """
    patience = Patience(f"Kafka at {settings.need_kafka_bootstrap()}")
    arguments = client_arguments(settings)
    while stop is None or not stop.is_set():
        fault = await _probe(arguments)
        if fault is None:
            patience.over()
            return
        await patience.wait(fault, stop)


async def _probe(arguments: dict[str, Any]) -> str | None:
    """None when one of the bootstrap servers lets us in, else why the last one didn't."""
    rest = {name: value for name, value in arguments.items() if name != "bootstrap_servers"}
    fault = "no server is named"
    for host, port, _ in collect_hosts(arguments["bootstrap_servers"]):
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                connection = await create_conn(host, port, **rest)
        except TimeoutError:
            fault = "no answer"
        except (OSError, KafkaConnectionError) as error:
            fault = f"can't be reached ({error})"
        except KafkaError as error:
            fault = f"refuses us ({error})"
        else:
            await connection.close()
            return None
    return fault
