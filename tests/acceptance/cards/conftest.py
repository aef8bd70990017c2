"""The ledger that the tests of card payments share: processes of its own before a real Kafka and a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from infra.devstack import RunningStack
from tests.fixtures.fleet import Fleet, running_fleet
from tests.fixtures.issuer import Issuer


@pytest.fixture(scope="package")
async def fleet(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Two workers, a relay and a clock. When the last test is over, books and streams must be whole."""
    async with running_fleet(stack, tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
def issuer(fleet: Fleet) -> Issuer:
    """A tenant of the test's own."""
    return Issuer(fleet)
