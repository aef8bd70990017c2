"""`make faults`: run a campaign and say what came of it."""

from __future__ import annotations

import argparse
import secrets
import sys

import uvloop

from tests.campaign.defects import DEFECTS
from tests.campaign.run import Plan, campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults ARGS=…", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the order of the faults")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--events", type=int, default=0, help="publish at least so many, evenly over the time")
    parser.add_argument("--scenario", default="all", help="`random`, `all` (each once), or names with commas between")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--relays", type=int, default=2)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--defect", default="", choices=["", *DEFECTS], help="plant a defect, which must be found")
    chosen = parser.parse_args()
    return 0 if uvloop.run(campaign(Plan(**vars(chosen)))).good else 1


if __name__ == "__main__":
    sys.exit(main())
