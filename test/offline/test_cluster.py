# SPDX-License-Identifier: Apache-2.0
"""A scheduler and workers as processes on loopback: they give what one process gives, whoever dies."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from wall_bag import write_bag

from occupancy_nn_ros.bags.reader import BagPart
from occupancy_nn_ros.cli.main import main
from occupancy_nn_ros.config import load_config
from occupancy_nn_ros.errors import ClusterError
from occupancy_nn_ros.jobs.dask_pool import DaskPool
from occupancy_nn_ros.jobs.run import Lost, Progress
from occupancy_nn_ros.labelling.bags import label_bags, label_into
from occupancy_nn_ros.labelling.plan import LabelPlan

distributed = pytest.importorskip(
    "distributed", reason="Dask is not installed: pip install 'occupancy-nn-ros[cluster]'"
)

BAGS = 3
PLAN = LabelPlan(load_config([], ["voxel_size_m=0.2", "keyframes.distance_m=0.01"]), BagPart())


class Cluster:
    """A scheduler and its workers."""

    def __init__(self, log):
        self.log, self.processes = log, []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.scheduler = self.start("scheduler", "--host", self.address, "--no-dashboard")

    def start(self, kind, *options, first="pass"):
        """Start one of Dask's commands, in a process that does something else first."""
        code = f"import sys; {first}; from distributed.cli.dask_{kind} import main; main()"
        command = [sys.executable, "-c", code, *options]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.log.parent)
        self.processes.append(process)
        return process

    def start_worker(self, **how):
        return self.start("worker", self.address, "--no-nanny", "--no-dashboard", "--nthreads", "1", **how)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path / "cluster.log")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bags")
    paths = [write_bag(folder / f"wall{n}.mcap", frames=4 + n) for n in range(BAGS)]
    (folder / "junk.mcap").write_bytes(b"no bag at all")
    return [*paths, folder / "junk.mcap"]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class DeadlyPool(DaskPool):
    """Kills the worker that is the first to say that it has begun a job."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.killed, self.given, self.lost = None, [], []

    def give(self, worker, job, work, argument):
        self.given.append(job)
        super().give(worker, job, work, argument)

    def wait(self, seconds):
        events = super().wait(seconds)
        begun = [event.job for event in events if isinstance(event, Progress)]
        if self.killed is None and begun and len(self._jobs) == 2:
            (worker,) = [name for name, (job, _) in self._jobs.items() if job == begun[0]]
            self.killed = begun[0]
            os.kill(self._client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)
        self.lost += [event.job for event in events if isinstance(event, Lost)]
        return events


def test_a_worker_dies_and_the_labels_are_those_of_one_process(cluster, bags, tmp_path):
    out, alone = tmp_path / "cluster", tmp_path / "alone"
    out.mkdir()
    cluster.start_worker()
    cluster.start_worker()
    pool, shares = DeadlyPool(cluster.address, out), []
    outcomes = label_bags(bags, out, PLAN, pool, shares.append)
    pool.close()
    assert pool.lost == [pool.killed] and sorted(pool.given) == sorted([*range(BAGS + 1), pool.killed])
    assert shares[-1] == 1.0
    assert [outcome.labels for outcome in outcomes[:-1]] == [label_into(bag, alone, PLAN) for bag in bags[:-1]]
    assert [outcome.labels.keyframes for outcome in outcomes[:-1]] == [4 + n for n in range(BAGS)]
    assert outcomes[-1].labels is None and "is no MCAP file" in outcomes[-1].refused
    assert files(out) == files(alone) and len(files(out)) >= 2 * BAGS
    assert not [name for name in files(out) if "partial" in name or name.startswith(".")]


def test_the_command_uses_workers_that_have_the_package_and_tells_of_others(
    cluster, bags, tmp_path, monkeypatch, capsys, caplog
):
    out = tmp_path / "out"
    cluster.start_worker(first="sys.modules['occupancy_nn_ros'] = None")
    options = ["--out", str(out), "--set", "keyframes.distance_m=0.01", "--cluster", cluster.address]
    assert main(["label", str(bags[0]), *options]) == 1
    said = capsys.readouterr().err
    assert f"none of the 1 workers at {cluster.address} can be used: ModuleNotFoundError" in said
    assert files(out) == {}
    cluster.start_worker()
    with distributed.Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    monkeypatch.chdir(bags[0].parent)
    assert main(["label", bags[0].name, *options, "--json"]) == 0
    assert re.search(r"worker tcp://\S+ is not used: ModuleNotFoundError", caplog.text)
    (labelled,) = json.loads(capsys.readouterr().out)["bags"]
    assert labelled["labels"]["keyframes"] == 2 and len(files(out)) == 2


def test_a_scheduler_that_is_none_or_goes_is_one_line_and_keeps_what_is_finished(cluster, bags, tmp_path, monkeypatch):
    monkeypatch.setattr("occupancy_nn_ros.jobs.dask_pool.CONNECT_S", 2.0)
    with pytest.raises(ClusterError, match=r"no scheduler answers at tcp://127\.0\.0\.1:1: "):
        DaskPool("tcp://127.0.0.1:1", tmp_path / "out")
    out = tmp_path / "out"
    assert files(out) == {}
    with pytest.raises(ClusterError, match="cannot write to"):
        DaskPool(cluster.address, bags[0] / "below_a_file")
    cluster.start_worker()
    elsewhere = DaskPool(cluster.address, out)
    elsewhere._mark.unlink()  # as for a worker that has another folder of this name
    with pytest.raises(ClusterError, match=rf"can be used: it does not see {out}, which has to be shared"):
        label_bags(bags, out, PLAN, elsewhere)
    elsewhere.close()
    assert files(out) == {}
    pool = DaskPool(cluster.address, out)
    kept = []

    def kill_when_one_is_done(share):
        if not kept and list(out.glob("*.json")):
            kept.append(files(out))
            cluster.scheduler.kill()

    with pytest.raises(ClusterError, match="is gone; what was finished is kept"):
        label_bags(bags, out, PLAN, pool, kill_when_one_is_done)
    pool.close()
    (finished,) = [name for name in kept[0] if name.endswith(".json")]
    assert finished in files(out)
    assert Path(json.loads(files(out)[finished])["bag"]) in bags
