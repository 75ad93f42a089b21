# SPDX-License-Identifier: Apache-2.0
"""Fuzz one target, or all in turn, guided by coverage: ``python test/fuzz/fuzz.py [TARGET...] --seconds 60``.

Needs ``pip install occupancy-nn-ros[fuzz]``. An input that ends in anything but one of the package's own errors, takes more than
``--timeout`` seconds or more than ``--memory-mib`` is written to ``test/fuzz/crashes/TARGET-...``; with a fix it stays there
as a test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Fuzz what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names as --list prints them (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=int, default=10, help="seconds that one input may take (default: %(default)s)"
    )
    parser.add_argument(
        "--memory-mib", type=int, default=2048, help="memory that the process may take (default: %(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="print the targets")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if args.in_this_process:
        return fuzz(args.targets[0], args)
    from targets import TARGETS

    if args.list:
        print("\n".join(TARGETS))
        return 0
    unknown = set(args.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    limits = [
        f"--{name}={value}"
        for name, value in (("seconds", args.seconds), ("timeout", args.timeout), ("memory-mib", args.memory_mib))
    ]
    outcomes = [_outcome(name, limits) for name in args.targets or TARGETS]
    return 0 if all(outcomes) else 1


def _outcome(name: str, limits: list[str]) -> bool:
    """Fuzz one target in a process of its own, so that one that dies does not end the others; whether it survived."""
    command = [sys.executable, __file__, name, "--in-this-process", *limits]
    # What the fuzzer adds to functions to see which way they take, numba cannot compile.
    plain = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", env=plain)
    print(f"{name}: {'survived' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", flush=True)
    return done.returncode == 0


def fuzz(name: str, args: argparse.Namespace) -> int:
    """Run one target until its time is over; does not return when it crashes."""
    import atheris

    with atheris.instrument_imports(include=["occupancy_nn_ros", "rosbags"]):
        from targets import TARGETS

    target = TARGETS[name]
    corpus = Path(tempfile.mkdtemp(prefix=f"corpus_{name}_"))
    for index, seed in enumerate(target.seeds()):
        (corpus / f"seed_{index}").write_bytes(seed)
    (HERE / "crashes").mkdir(exist_ok=True)
    options = [
        f"-max_total_time={args.seconds}", f"-timeout={args.timeout}", f"-rss_limit_mb={args.memory_mib}", "-max_len=65536",
        "-print_final_stats=0", "-verbosity=0", f"-artifact_prefix={HERE / 'crashes' / name}-",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.survive)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
