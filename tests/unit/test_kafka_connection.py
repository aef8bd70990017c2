"""How settings become a client's arguments, and what is said where they can't."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from infra.kafka.connection import client_arguments
from infra.settings import Settings, SettingsError

BROKER = "broker.example:9092"


def test_plaintext_needs_only_the_servers() -> None:
    assert client_arguments(Settings(kafka_bootstrap=BROKER, client_id="me")) == {
        "bootstrap_servers": BROKER,
        "client_id": "me",
        "security_protocol": "PLAINTEXT",
    }


def test_tls_checks_the_brokers_name_and_certificate() -> None:
    context = client_arguments(Settings(kafka_bootstrap=BROKER, kafka_security_protocol="SSL"))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_sasl_carries_mechanism_and_credentials() -> None:
    arguments = client_arguments(
        Settings(
            kafka_bootstrap=BROKER,
            kafka_security_protocol="SASL_PLAINTEXT",
            kafka_sasl_mechanism="SCRAM-SHA-512",
            kafka_sasl_username="ledger",
            kafka_sasl_password="secret",
        )
    )
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("ledger", "secret")
    assert "ssl_context" not in arguments


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(), "LEDGER_KAFKA_BOOTSTRAP is not set"),
        (Settings(kafka_bootstrap=BROKER, kafka_security_protocol="SASL_SSL"), "LEDGER_KAFKA_SASL_USERNAME"),
        (
            Settings(kafka_bootstrap=BROKER, kafka_security_protocol="SSL", kafka_ssl_cafile="/no/ca.pem"),
            "LEDGER_KAFKA_SSL_CAFILE is '/no/ca.pem'",
        ),
        (
            Settings(kafka_bootstrap=BROKER, kafka_security_protocol="SSL", kafka_ssl_certfile="/no/cert.pem"),
            "LEDGER_KAFKA_SSL_CERTFILE '/no/cert.pem'",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(settings: Settings, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        client_arguments(settings)


def test_a_file_that_holds_no_certificates_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")
    with pytest.raises(SettingsError, match="LEDGER_KAFKA_SSL_CAFILE"):
        client_arguments(Settings(kafka_bootstrap=BROKER, kafka_security_protocol="SSL", kafka_ssl_cafile=str(file)))
