# SPDX-License-Identifier: Apache-2.0
"""Results of benchmark runs as dated rows, and the tables in docs/ that are made of them.

A benchmark run with ``--record`` appends its rows to ``benchmarks/results/NAME.jsonl``. A page holds a table between two comments, ``table:
NAME`` and ``end``; the newest row of each entry stands in it. So no figure is typed, and each tells when, where and by what it was made.

    python benchmarks/records.py            # write the tables into the pages
    python benchmarks/records.py --check    # exit with 1 where a page is not current
    occupancy-nn eval --bag BAG --json | python benchmarks/records.py --add real name=kitchen poses=aligned command='eval --bag BAG'
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from columns import (
    ADAPTING_COLUMNS,
    ADAPTING_DIGITS,
    ARRIVAL_COLUMNS,
    BODY_COLUMNS,
    BUSY_COLUMNS,
    CLASS_COLUMNS,
    EDGE_COLUMNS,
    GRID_COLUMNS,
    KEYFRAME_COLUMNS,
    PERSON_COLUMNS,
    PRIORITY_COLUMNS,
    REAL_COLUMNS,
    RECEIVE_COLUMNS,
    RECEIVE_DIGITS,
    RECEIVE_GOALS,
    SOAK_COLUMNS,
    SOAK_DIGITS,
    SOAK_GOALS,
    TRUST_COLUMNS,
    WALKER_COLUMNS,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE_WIDTH = 140
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)
Row = dict[str, Any]

WORLD_COLUMNS = {
    "IoU": "iou", "MCC": "mcc", "precision": "precision", "recall": "recall", "fused IoU": "fused_iou",
    "fused MCC": "fused_mcc", "fused F-score": "fused_f_score", "missed 3 m": "missed_obstacle_rate_3m",
    "phantom 3 m": "phantom_obstacle_rate_3m", "missed, one cell": "missed_obstacle_rate_3m_tolerant",
    "phantom, one cell": "phantom_obstacle_rate_3m_tolerant",
}  # fmt: skip
RAY_COLUMNS = {
    "ray IoU 1 vox": "fused_ray_iou_1vox", "2 vox": "fused_ray_iou_2vox", "4 vox": "fused_ray_iou_4vox",
    "1 m": "fused_ray_iou_1m", "2 m": "fused_ray_iou_2m", "4 m": "fused_ray_iou_4m",
}  # fmt: skip
BAG_COLUMNS = {
    "IoU": "iou", "MCC": "mcc", "precision": "precision", "recall": "recall", "F-score": "f_score",
    "ray IoU 2 vox": "ray_iou_2vox", "ray IoU 1 m": "ray_iou_1m",
}  # fmt: skip
MAP_COLUMNS = {
    "threads": "threads", "median ms": "median_ms", "ratio": "ratio", "IoU": "iou", "free right": "free_right",
    "peak MiB": "peak_rss_mib",
}  # fmt: skip
POSE_COLUMNS = {
    "IoU": "iou", "MCC": "mcc", "F-score": "f_score", "IoU, as told": "iou_as_told", "MCC, as told": "mcc_as_told",
    "F-score, as told": "f_score_as_told",
}  # fmt: skip
OUTPUT_COLUMNS = {"ms": "ms", "kB": "kb", "messages/s": "rate_hz", "MB/s": "mb_s", "share of a core": "share"}


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        results: name of the file that holds its rows.
        columns: headline of each column and the key of its figure.
        labels: headline and key of what tells entries apart; these columns come first.
        digits: of a column by its key, how many decimals or a format of Python; 3 decimals where it is not named.
        views: rows made of entries by name: of which one, and how its keys are called, such as ``fused_{}``.
        goals: the table lies on its side, a line for each figure, and ends with these by key.
    """

    results: str
    columns: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=lambda: {"": "name"})
    digits: Mapping[str, int | str] | None = None
    views: Mapping[str, tuple[str, str]] | None = None
    goals: Mapping[str, str] | None = None


TABLES = {
    "held_out": Table("held_out", WORLD_COLUMNS),
    "held_out_unchosen": Table("held_out_unchosen", WORLD_COLUMNS),
    "rays": Table("held_out", RAY_COLUMNS),
    "recording": Table("recording", BAG_COLUMNS),
    "pose_errors": Table("pose_errors", POSE_COLUMNS, {"poses": "name"}),
    "outputs": Table(
        "outputs", OUTPUT_COLUMNS, {"output": "name"}, {"ms": 1, "kb": 0, "rate_hz": 1, "mb_s": 2, "share": 3}
    ),
    "busy": Table(
        "busy", BUSY_COLUMNS, {"busy processes": "busy", "": "name"},
        {**dict.fromkeys(BUSY_COLUMNS.values(), 2), "keyframes": 0},
    ),
    "keyframe": Table(
        "keyframe", KEYFRAME_COLUMNS, {"busy processes": "busy", "": "name"}, dict.fromkeys(KEYFRAME_COLUMNS.values(), 0)
    ),
    "priorities": Table(
        "priorities", PRIORITY_COLUMNS, {"busy processes": "busy", "threads that compute": "name"},
        {**dict.fromkeys(PRIORITY_COLUMNS.values(), 1), "keyframe_p50_s": 2},
    ),
    "memory": Table(
        "memory", {"peak, MiB": "peak_mib", "planned, MiB": "planned_mib"}, {"": "command_name", "with": "name"},
        {"peak_mib": 0, "planned_mib": 0},
    ),
    "map": Table(
        "map",
        MAP_COLUMNS,
        {"sensor": "sensor", "voxel m": "voxel_m", "mapper": "name"},
        {"median_ms": 1, "ratio": 2, "peak_rss_mib": 0, "threads": 0},
    ),
    "map_stages": Table("map_stages", {"median ms": "median_ms"}, {"what": "name"}, {"median_ms": 2}),
    "nano": Table(
        "held_out",
        {"IoU": "iou", "MCC": "mcc", "precision": "precision", "recall": "recall", "F-score, one voxel": "f_score"},
        views={
            "single prediction": ("model", "{}"), "fused map": ("model", "fused_{}"),
            "map from perfect depth": ("depth", "fused_{}"),
        },
    ),
    "nano_grid": Table(
        "held_out", GRID_COLUMNS, digits=dict.fromkeys(GRID_COLUMNS.values(), ".1%"),
        views={
            "as they are": ("model", "{}"), "with a tolerance of one cell": ("model", "{}_tolerant"),
            "perfect depth": ("depth", "{}"), "perfect depth, one cell": ("depth", "{}_tolerant"),
        },
    ),
    "nano_trust": Table(
        "held_out", TRUST_COLUMNS, views={"nano": ("model", "{}")},
        digits={
            **dict.fromkeys(["class_accuracy", "unseen_free_right", "depth_sure_share", "depth_within_10_percent"], ".0%"),
            **dict.fromkeys(["unseen_free_share", "depth_median_error"], ".1%"),
        },
    ),
    "person": Table(
        "held_out", PERSON_COLUMNS, digits={"time_to_mark_s": 1, "time_to_clear_s": 1, "cleared_share": ".0%"},
        views={"model": ("model", "{}"), "perfect depth": ("model", "{}_ceiling")},
    ),
    "edges": Table(
        "edges", EDGE_COLUMNS, {"": "kind", "voxels, m": "voxel_size_m", "map": "name"}, {"edges": 0}
    ),
    "walkers": Table(
        "walkers", WALKER_COLUMNS, {"map": "name"}, {**dict.fromkeys(WALKER_COLUMNS.values(), 2), "people": 0}
    ),
    "arrivals": Table(
        "walkers", ARRIVAL_COLUMNS, {"map": "name"},
        {"arrivals": 0, "moving_median_s": 1, "grid_median_s": 1, "moving_in_time": ".0%", "grid_in_time": ".0%"},
    ),
    "body": Table("body", BODY_COLUMNS, {"the robot is": "kind", "map": "name"}, {"phantoms_per_look": 1}),
    "classes": Table(
        "held_out", CLASS_COLUMNS, views={"single predictions": ("model", "{}"), "map": ("model", "fused_{}")}
    ),
    "real": Table(
        "real", REAL_COLUMNS, {"recording": "name", "poses": "poses"},
        {"depth_median_error": ".1%", "depth_within_10_percent": ".0%"},
    ),
    "adapting": Table("adapting", ADAPTING_COLUMNS, {"place": "place", "weights": "name"}, ADAPTING_DIGITS),
    "soak": Table("soak", SOAK_COLUMNS, digits=SOAK_DIGITS, goals=SOAK_GOALS),
    "receive": Table("receive", RECEIVE_COLUMNS, digits=RECEIVE_DIGITS, goals=RECEIVE_GOALS),
}  # fmt: skip


def record(results: str, rows: Iterable[Row]) -> None:
    """Append rows to a results file, each with the time, the commit, the machine and the command of this run.

    Of what a row holds only numbers and text are kept, those of a mapping under joined names.
    """
    here = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "command": shlex.join(["python", *_relative(sys.argv)]),
    }
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{results}.jsonl").open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**here, **flat(row)}) + "\n")


def flat(row: Row) -> Row:
    """A row without mappings in it: ``{"end": {"p50_ms": 1}}`` becomes ``{"end_p50_ms": 1}``."""
    plain: Row = {}
    for key, value in row.items():
        plain |= {f"{key}_{k}": v for k, v in flat(value).items()} if isinstance(value, dict) else {key: _plain(value)}
    return plain


def _plain(value: Any) -> Any:
    """The value as JSON has it: numbers of NumPy become Python's, and those that are not finite null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _commit() -> str:
    """The commit that was measured, marked where files differ from it; empty outside a repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _relative(arguments: Sequence[str]) -> list[str]:
    """A command line without this machine's folders: paths become names, those of the repository keep their place."""
    paths = [Path(argument) for argument in arguments]
    return [
        str(path.resolve().relative_to(ROOT))
        if path.resolve().is_relative_to(ROOT) and path.exists()
        else (path.name if path.is_absolute() else argument)
        for path, argument in zip(paths, arguments, strict=True)
    ]


def newest(table: Table) -> list[Row]:
    """The newest row of each entry, in the order in which entries first came."""
    rows: dict[tuple[Any, ...], Row] = {}
    keys = [*table.labels.values(), *(["threads"] if "threads" in table.columns.values() else [])]
    for line in (RESULTS / f"{table.results}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[tuple(row[key] for key in keys)] = row
    return [
        row for row in rows.values() if table.views or any(row.get(key) is not None for key in table.columns.values())
    ]


def entries(table: Table) -> list[Row]:
    """What the table shows: the newest rows, or views of them."""
    rows = newest(table)
    if table.views is None:
        return rows
    named = {row["name"]: row for row in rows}
    return [
        {**named[name], **{key: named[name].get(form.format(key)) for key in table.columns.values()}, "name": view}
        for view, (name, form) in table.views.items()
    ]


def render(table: Table) -> str:
    """Markdown: the table, and below it when, where and by what its rows were made."""
    rows = entries(table)
    lines = [[*table.labels, *table.columns]]
    lines += [
        [
            *(str(row[key]) for key in table.labels.values()),
            *(_cell(row.get(key), (table.digits or {}).get(key, 3)) for key in table.columns.values()),
        ]
        for row in rows
    ]
    if table.goals is not None:
        goals = [*[""] * len(table.labels), *(table.goals.get(key, "") for key in table.columns.values())]
        lines = [list(line) for line in zip(*lines, [*["goal"], *goals[1:]], strict=True)]
    head, *body = (f"| {' | '.join(cell.strip() for cell in line)} |".replace("|  |", "| |") for line in lines)
    made: dict[str, list[str]] = {}
    for row in rows:
        names = made.setdefault(_origin(row), [])
        names += [row["name"]] if row["name"] not in names else []
    notes = [
        f"{', '.join(names)}: {origin[0].lower()}{origin[1:]}" if len(made) > 1 else origin
        for origin, names in made.items()
    ]
    told = "<br>\n".join(notes).splitlines()
    wrapped = [textwrap.fill(line, PAGE_WIDTH, break_on_hyphens=False, break_long_words=False) for line in told]
    return "\n".join([head, "|---" * len(lines[0]) + "|", *body, "", *wrapped])


def _origin(row: Row) -> str:
    """When, where and by what a row was made; the oldest rows were read off a page, whose date they bear."""
    date = f"This page as of {row['date']}" if row.get("from_page") else row["date"]
    return f"{date}, {row['machine']}, `{row['command']}`."


def _cell(value: Any, digits: int | str) -> str:
    if value is None:
        return "-"
    text = format(value, digits if isinstance(digits, str) else f".{digits}f")
    return text.replace("%", " %")


def pages() -> list[Path]:
    """Pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "models").glob("*.md"))]


def current(text: str) -> str:
    """A page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{render(TABLES[found[2]])}\n{found[3]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is not current")
    parser.add_argument(
        "--add", nargs="+", metavar=("RESULTS", "KEY=VALUE"),
        help="append the JSON object on standard input to these results, with these keys",
    )  # fmt: skip
    chosen = parser.parse_args(arguments)
    if chosen.add:
        keys = dict(pair.split("=", 1) for pair in chosen.add[1:])
        record(chosen.add[0], [{**json.load(sys.stdin), **keys}])
        return 0
    checks = chosen.check
    old = [page for page in pages() if current(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    for page in old:
        print(f"{'not current' if checks else 'written'}: {page.relative_to(ROOT)}")
        if not checks:
            page.write_text(current(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if checks and old else 0


if __name__ == "__main__":
    sys.exit(main())
