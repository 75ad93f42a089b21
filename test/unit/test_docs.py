# SPDX-License-Identifier: Apache-2.0
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from occupancy_nn_ros.cli.config_docs import parameters_page

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


def test_tables_hold_the_newest_results():
    assert records.main(["--check"]) == 0
    used = {name for page in records.pages() for _, name, _ in records.MARKED.findall(page.read_text(encoding="utf-8"))}
    assert used == set(records.TABLES)


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
