"""`make faults`: run a campaign and say what came of it."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from pathlib import Path

import uvloop

from infra import devstack
from tests.campaign.defects import DEFECTS
from tests.campaign.drills import play
from tests.campaign.run import Plan, campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults ARGS=…", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the order of the faults")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--events", type=int, default=0, help="publish at least so many, evenly over the time")
    parser.add_argument("--scenario", default="all", help="`random`, `all` (each once), or names with commas between")
    parser.add_argument("--calm", type=float, default=None, help="seconds after a fault, on average (random: 5)")
    parser.add_argument("--warm", type=int, default=None, help="records before the first fault (random: 20000)")
    parser.add_argument("--json", action="store_true", help="one document on standard output, all else on the other")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--relays", type=int, default=2)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--defect", default="", choices=["", *DEFECTS], help="plant a defect in a campaign")
    parser.add_argument(
        "--defects", nargs="*", metavar="NAME",
        help="instead of a campaign: for each planted defect the one scenario that must find it",
    )  # fmt: skip
    chosen = vars(parser.parse_args())
    if (defects := chosen.pop("defects")) is not None:
        return 0 if uvloop.run(find_defects(defects or list(DEFECTS))) else 1
    random_run = chosen["scenario"] == "random"
    calm, warm = chosen.pop("calm"), chosen.pop("warm")
    chosen["calm_seconds"] = (5.0 if random_run else 1.0) if calm is None else calm
    chosen["warm_events"] = (20_000 if random_run else 0) if warm is None else warm
    tell = (lambda document: print(json.dumps(document))) if chosen.pop("json") else None
    return 0 if uvloop.run(campaign(Plan(**chosen), tell=tell)).good else 1


async def find_defects(names: list[str]) -> bool:
    """Play each on servers made for that, and print what caught it; whether all were caught for the right reason."""
    folder = Path(tempfile.mkdtemp(prefix="ledgerstream-defects-"))
    found = 0
    stack = devstack.up(folder / "stack")
    try:
        for name in names:
            played = await play(stack, folder / name, name)
            found += played.found
            print(f"{name} ({played.seconds:.0f} s): {played.drill.about}")
            print(
                f"    without it: {'nothing lost, nothing doubled' if played.sound.good else played.sound.faults[:3]}"
            )
            caught = f"{len(played.caught)} of {len(played.harmed.faults)} red lines, {played.caught[:1]}"
            print(f"    with it: {caught if played.caught else f'NOT FOUND; {played.harmed.faults[:3]}'}", flush=True)
    finally:
        devstack.down(folder / "stack", wipe=True)
    print(f"{found} of {len(names)} defects found, each by the line that it causes; the logs are in {folder}")
    return found == len(names)


if __name__ == "__main__":
    sys.exit(main())
