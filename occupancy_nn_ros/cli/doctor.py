# SPDX-License-Identifier: Apache-2.0
"""Check from outside whether the node could run, on the live ROS graph or on a bag.

Looks at cameras, camera_info, rates, synchronisation, encodings, transforms, QoS and the model, and says of each problem
what to do about it. The exit status is 1 where there are problems. On the live graph it takes --ros-args as the node does:
-r __ns:=/robot1 -r /tf:=tf -r /tf_static:=tf_static is a robot in its own namespace.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.cli.settings import add_settings, further_decoders, read_settings
from occupancy_nn_ros.errors import MissingDependencyError

if TYPE_CHECKING:
    from occupancy_nn_ros.doctor.findings import Finding

LIVE_S, BAG_S = 5.0, 30.0
COLORS = {"ok": "32", "warning": "33", "problem": "31"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("bag", type=Path, nargs="?", help="bag to check instead of the live ROS graph")
    parser.add_argument(
        "--wait", type=float, metavar="SECONDS",
        help=f"how long to listen (default: {LIVE_S:g}), or how much of the bag to look at (default: {BAG_S:g})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, nothing else")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print the findings, and return 1 if there are problems."""
    from occupancy_nn_ros.doctor.examination import examine_bag

    config = read_settings(args)
    if args.bag is not None:
        findings = examine_bag(args.bag, config, BAG_S if args.wait is None else args.wait, further_decoders())
    else:
        try:
            from occupancy_nn_ros.ros.doctor import examine_graph
        except ImportError as error:
            raise MissingDependencyError(
                f"checking the live graph needs rclpy ({error}): source a ROS 2 distribution, run scripts/setup, or give a bag"
            ) from None
        findings = examine_graph(config, LIVE_S if args.wait is None else args.wait, args.ros_arguments)
    counts = Counter(finding.level for finding in findings)
    if args.json:
        checks = [asdict(finding) for finding in findings]
        print(json.dumps({"problems": counts["problem"], "warnings": counts["warning"], "checks": checks}, indent=2))
    else:
        _print(findings, counts["problem"], counts["warning"])
    return 1 if counts["problem"] else 0


def _print(findings: Sequence[Finding], problems: int, warnings: int) -> None:
    width = max((len(finding.subject) for finding in findings), default=0)
    for finding in findings:
        print(f"{_mark(finding.level)}  {finding.subject:<{width}}  {finding.text}")
        if finding.advice:
            print(f"{'':9}{'':<{width}}  -> {finding.advice}")
    verdict = _count(problems, "problem") if problems else "the node can run"
    print(f"{verdict}, {_count(warnings, 'warning')}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _mark(level: str) -> str:
    text = f"{level:<7}"
    return f"\033[{COLORS[level]}m{text}\033[0m" if sys.stdout.isatty() else text
