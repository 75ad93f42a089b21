# SPDX-License-Identifier: Apache-2.0
"""Workers that are none, for what hands jobs to workers."""

from collections import Counter

from occupancy_nn_ros.jobs.run import Lost, Progress, do_job


class FakePool:
    """Workers in this process, which die when they begin a job whose name is left in ``deaths``."""

    def __init__(self, workers=2, deaths=()):
        self.names, self.deaths = [f"w{n}" for n in range(workers)], Counter(deaths)
        self.begun, self.running, self.most = Counter(), {}, 0

    def free_workers(self):
        return [name for name in self.names if name not in self.running]

    def give(self, worker, job, work, argument):
        assert worker not in self.running
        self.begun[job] += 1
        self.running[worker] = job, work, argument
        self.most = max(self.most, len(self.running))

    def wait(self, seconds):
        _, (job, work, argument) = self.running.popitem()
        if self.deaths[job]:
            self.deaths[job] -= 1
            return [Progress(job, 0.5), Lost(job)]
        sent = []
        ended = do_job(job, work, argument, sent.append)
        return [*sent, ended]

    def close(self):
        pass
