# SPDX-License-Identifier: Apache-2.0
"""What the workflows run is there: scripts, modules, extras, Pythons, and the names in their expressions."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHECKOUT = "workspace/src/occupancy_nn_ros/"


def load(path):
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def jobs():
    return [
        pytest.param(path, name, job, id=f"{path.stem}-{name}")
        for path in FILES
        for name, job in load(path)["jobs"].items()
    ]


def commands(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_workflows_may_read_and_nothing_else_and_are_started_by_something(path):
    flow = load(path)
    assert flow.keys() <= {"name", "on", "permissions", "env", "jobs"}
    assert flow["permissions"] == {"contents": "read"}
    assert flow["on"].keys() <= {"push", "pull_request", "schedule", "workflow_dispatch"} and flow["on"]


@pytest.mark.parametrize(("path", "name", "job"), jobs())
def test_jobs_end_and_begin_with_the_repository(path, name, job):
    assert int(job["timeout-minutes"]) > 0
    assert job["steps"][0]["uses"].startswith("actions/checkout@")
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize(("path", "name", "job"), jobs())
def test_what_they_run_is_there(path, name, job):
    text = commands(job)
    for script in re.findall(rf"(?:{CHECKOUT})?((?:scripts|test|benchmarks)/[\w./]+)", text):
        assert (ROOT / script).exists(), script
    for script in re.findall(rf"^\s*(?:{CHECKOUT})?(scripts/[\w./]+)", text, re.M):
        assert os.access(ROOT / script, os.X_OK), script
    for module in re.findall(r"python3? -m ([\w.]+)", text):
        assert find_spec(module) is not None, module
    for extras in re.findall(r"'\.\[([\w,]+)\]'", text):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    for launch in re.findall(r"for file in (.*?); do\s+ros2 launch", text):
        assert all((ROOT / "launch" / f"{file}.launch.py").exists() for file in launch.split())


@pytest.mark.parametrize(("path", "name", "job"), jobs())
def test_expressions_name_what_exists(path, name, job):
    matrix = job.get("strategy", {}).get("matrix", {})
    used = re.findall(r"\$\{\{(.*?)\}\}", yaml.dump(job))
    assert {key for text in used for key in re.findall(r"matrix\.(\w+)", text)} <= matrix.keys()
    assert all(re.match(r" (matrix|vars|env)\.\w+", text) for text in used)
    low = tuple(int(part) for part in PROJECT["requires-python"].removeprefix(">=").split("."))
    pythons = [tuple(int(part) for part in text.split(".")) for text in matrix.get("python", ["3.12"])]
    assert min(pythons) >= low


def test_the_oldest_python_that_is_promised_is_tested():
    pythons = {
        python
        for *_, job in [p.values for p in jobs()]
        for python in job.get("strategy", {}).get("matrix", {}).get("python", [])
    }
    assert PROJECT["requires-python"].removeprefix(">=") in pythons
