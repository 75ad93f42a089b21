# SPDX-License-Identifier: Apache-2.0
import io
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from occupancy_nn_ros.cli.config_docs import parameters_page
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.messages.names import IMAGE
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.outputs import output_topics

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import records  # noqa: E402


def test_the_page_of_parameters_is_current():
    assert (ROOT / "docs" / "parameters.md").read_text() == parameters_page()


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "models").glob("*.md")]
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link
    ]
    assert len(links) > 5
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_lines_of_pages_fit_an_editor():
    lines = [(page.name, line) for page in records.pages() for line in page.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if len(line[1]) > records.PAGE_WIDTH and not line[1].startswith("|")] == []


def test_tables_hold_the_newest_results():
    assert records.main(["--check"]) == 0
    used = {name for page in records.pages() for _, name, _ in records.MARKED.findall(page.read_text(encoding="utf-8"))}
    assert used == set(records.TABLES)


def test_every_output_is_in_the_table_of_costs():
    """What was added is measured with: python benchmarks/outputs.py out/map.mcap --record, then python benchmarks/records.py."""
    measured = {re.match("`[^`]*`|", row["name"])[0] for row in records.newest(records.TABLES["outputs"])}
    camera = SensorStream("CAMERA", "/camera/image_raw", IMAGE)
    topics = [*(f"~/{topic.name}" for topic in output_topics(Config(), [camera])), "~/status", "/diagnostics"]
    assert {f"`{name}`" for name in topics} - measured == set()


def test_a_newer_row_takes_the_place_of_an_older_one_and_tells_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "baselines.py"), "eval", "--bag", "/home/me/walk"])
    table = records.Table("walk", {"IoU": "iou", "rays": "rays"}, digits={"rays": 1})
    records.record("walk", [{"name": "a", "iou": 0.1, "rays": 2.04}, {"name": "b", "iou": math.nan, "rays": 1.0}])
    records.record("walk", [{"name": "a", "iou": np.float32(0.25), "rays": 3.0}])
    lines = records.render(table).splitlines()
    assert lines[:4] == ["| | IoU | rays |", "|---|---|---|", "| a | 0.250 | 3.0 |", "| b | - | 1.0 |"]
    assert lines[5].endswith("`python benchmarks/baselines.py eval --bag walk`.")
    rows = [json.loads(line) for line in (tmp_path / "walk.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"]) and row["machine"] for row in rows)


def write_rows(folder, name, rows):
    here = {"date": "2026-11-01", "machine": "2 cores", "command": "x"}
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(here | row) + "\n" for row in rows))


def test_a_table_may_show_one_row_in_several_ways_or_lie_on_its_side(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    write_rows(
        tmp_path, "maps", [{"name": "model", "iou": 0.5, "fused_iou": 0.625}, {"name": "depth", "fused_iou": 0.75}]
    )
    views = {"alone": ("model", "{}"), "fused": ("model", "fused_{}"), "from depth": ("depth", "fused_{}")}
    lines = records.render(records.Table("maps", {"IoU": "iou"}, digits={"iou": ".1%"}, views=views)).splitlines()
    assert lines[:5] == [
        "| | IoU |",
        "|---|---|",
        "| alone | 50.0 % |",
        "| fused | 62.5 % |",
        "| from depth | 75.0 % |",
    ]
    assert lines[6:] == ["2026-11-01, 2 cores, `x`."]
    table = records.Table("maps", {"alone": "iou", "fused": "fused_iou"}, goals={"fused_iou": "0.7"})
    lines = records.render(table).splitlines()
    assert lines[:4] == [
        "| | model | depth | goal |",
        "|---|---|---|---|",
        "| alone | 0.500 | - | |",
        "| fused | 0.625 | 0.750 | 0.7 |",
    ]


def test_what_a_benchmark_prints_is_kept_under_joined_names(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"drops": 2, "end": {"p50_ms": 7.5}}'))
    assert records.main(["--add", "soak", "name=night", "command=python benchmarks/soak.py --json"]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "soak.jsonl").read_text().splitlines()]
    assert (row["drops"], row["end_p50_ms"], row["name"]) == (2, 7.5, "night")
    assert row["command"] == "python benchmarks/soak.py --json" and "from_page" not in row
