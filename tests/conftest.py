"""Fixtures for every kind of test."""

from __future__ import annotations

import pytest

from tests.fixtures.database import database_url, empty_database_url, settings, shards
from tests.fixtures.stack import kafka_bootstrap, stack, topic_prefix

__all__ = ["database_url", "empty_database_url", "kafka_bootstrap", "settings", "shards", "stack", "topic_prefix"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shards(n): the number of shards of this test's ledger")
