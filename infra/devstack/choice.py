"""Servers that somebody else runs, named in the environment: they go before any of ours."""

from __future__ import annotations

from collections.abc import Mapping

from infra.devstack.errors import StackError
from infra.devstack.running import RunningStack

_NAMES = ("LEDGER_DATABASE_URL", "LEDGER_KAFKA_BOOTSTRAP")


def named_in_environment(environ: Mapping[str, str]) -> RunningStack | None:
    """The servers that the environment names; None where it names none.

    Raises: StackError where it names only one of the two.
    """
    database_url, kafka_bootstrap = (environ.get(name, "") for name in _NAMES)
    if database_url and kafka_bootstrap:
        return RunningStack(kind="environment", database_url=database_url, kafka_bootstrap=kafka_bootstrap)
    if database_url or kafka_bootstrap:
        there, lacking = _NAMES if database_url else reversed(_NAMES)
        raise StackError(f"{there} is set, but {lacking} is not; set both, or neither for a stack of our own")
    return None
