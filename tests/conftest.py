"""Fixtures for every kind of test."""

from __future__ import annotations

import pytest

from tests.fixtures.database import database_url, empty_database_url, settings, shards
from tests.fixtures.desk import desk, ledger_settings, lone_desk, shared_settings
from tests.fixtures.ledger import running_ledger
from tests.fixtures.stack import kafka_bootstrap, stack, topic_prefix

__all__ = [
    "database_url",
    "desk",
    "empty_database_url",
    "kafka_bootstrap",
    "ledger_settings",
    "lone_desk",
    "running_ledger",
    "settings",
    "shards",
    "shared_settings",
    "stack",
    "topic_prefix",
]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shards(n): the number of shards of this test's ledger")
