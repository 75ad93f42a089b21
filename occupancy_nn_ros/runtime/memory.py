# SPDX-License-Identifier: Apache-2.0
"""How much memory a run may take (``max_memory_mib``): planned before it starts, watched while it goes on.

What the process has already is measured. What comes is estimated from the settings; the figures below were measured with the shipped
model (docs/robustness.md) and rounded up.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from occupancy_nn_ros.compute.threads import available_cores
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ConfigError
from occupancy_nn_ros.mapping.map_memory import voxel_bytes
from occupancy_nn_ros.network.model import ModelConfig
from occupancy_nn_ros.values import SEMANTIC_CLASSES

MODEL_MIB, THREAD_MIB, USUAL_PIXELS = 140, 75, 98304
"""Weights and kernels of the network, and what each of its threads works in at the number of pixels of the shipped model."""
VIEW_BYTES, PAST_VIEW_BYTES = 200, 13
"""For each pixel that the network is shown: of a camera's picture now, and of each past one that is kept for matching."""
WAITING_VIEW_BYTES = 12
"""The same of each picture that waits to be looked at again: pixels, and features at strides 8 and 4."""
QUERY_BYTES, OUTPUT_BYTES, COLOR_BYTES = 330, 20, 8
"""For each voxel: of those that the network is asked about, of those that are sent out, and for its colour."""
USUAL_CAMERAS = 4
REST_MIB = 100
"""Pictures, messages, and what libraries load later."""
LEAST_FRAMES_MIB = 64
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MemoryPlan:
    """What a run will take.

    Attributes:
        config: the settings, cut to what fits.
        needed_mib: MiB by what takes them.
        left_out: what was cut, worded for people.
    """

    config: Config
    needed_mib: dict[str, int]
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The parts and their sum."""
        parts = ", ".join(f"{name} {mib}" for name, mib in self.needed_mib.items())
        return f"{sum(self.needed_mib.values())} MiB ({parts})"


def plan_memory(config: Config, cameras: int = 0, taken_mib: int | None = None) -> MemoryPlan:
    """Cut what may be cut until a run fits into ``max_memory_mib``.

    Args:
        config: the settings.
        cameras: how many cameras the network will see; 0: as many as are named, or the usual number.
        taken_mib: what the process has already; measured if None.

    Raises:
        ConfigError: it cannot fit; tells what takes how much.
    """
    taken_mib = _status_mib("VmRSS") or peak_mib() if taken_mib is None else taken_mib
    needed = {"process": taken_mib, "map": _map_mib(config), "rest": REST_MIB}
    if config.source == "network":
        needed["network"] = _network_mib(config, cameras or len(config.cameras) or USUAL_CAMERAS)
    wanted_frames, wanted_places = 2 * config.sync.queue_mib, config.map.remember_mib
    left = config.max_memory_mib - sum(needed.values())
    if not config.max_memory_mib:
        return MemoryPlan(config, {**needed, "frames": wanted_frames, "remembered places": wanted_places})
    if left < min(LEAST_FRAMES_MIB, wanted_frames):
        plan = MemoryPlan(config, {**needed, "frames": min(LEAST_FRAMES_MIB, wanted_frames)})
        raise ConfigError(
            f"max_memory_mib is {config.max_memory_mib}, but at least {plan} are needed: allow more, or choose a smaller "
            "map.size_xy_m, a larger voxel_size_m, or fewer network.threads"
        )
    frames = min(wanted_frames, max(LEAST_FRAMES_MIB, left - wanted_places))
    places = min(wanted_places, left - frames)
    left_out = []
    if frames < wanted_frames:
        left_out.append(f"sync.queue_mib is {frames // 2} instead of {config.sync.queue_mib}")
    if places < wanted_places:
        left_out.append(f"map.remember_mib is {places} instead of {wanted_places}")
    fitting = replace(
        config,
        sync=replace(config.sync, queue_mib=frames // 2),
        map=replace(config.map, remember_mib=places),
    )
    return MemoryPlan(fitting, {**needed, "frames": frames, "remembered places": places}, tuple(left_out))


def _map_mib(config: Config) -> int:
    height_m = config.map.below_m + config.map.above_m
    voxels = config.map.size_xy_m**2 * height_m / config.voxel_size_m**3
    colors = COLOR_BYTES if config.outputs.color_by == "camera" else 0
    return _mib(voxels * (voxel_bytes(len(SEMANTIC_CLASSES)) + colors + OUTPUT_BYTES))


def _network_mib(config: Config, cameras: int) -> int:
    threads = config.network.threads or available_cores()
    pixels = config.network.canvas_pixels or USUAL_PIXELS
    side_m = min(config.map.size_xy_m, 2 * ModelConfig().range_m)
    asked = side_m**2 * (config.map.below_m + config.map.above_m) / config.voxel_size_m**3
    again = config.network.places_until_again
    waiting = again + 1 if again else 0
    past = PAST_VIEW_BYTES * config.network.past_keyframes + WAITING_VIEW_BYTES * waiting
    views = cameras * pixels * (VIEW_BYTES + past)
    return MODEL_MIB + round(THREAD_MIB * threads * pixels / USUAL_PIXELS) + _mib(views + asked * QUERY_BYTES)


def _mib(count: float) -> int:
    return int(count) >> 20


def peak_mib() -> int:
    """The most resident memory that this process has had, since :func:`forget_peak` where the system can forget it."""
    return _status_mib("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _status_mib(name: str) -> int:
    """A figure of proc_pid_status(5) in MiB, 0 where there is none: not Linux."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration, ValueError):
        return 0


def forget_peak() -> None:
    """Measure the peak from now on, see proc_pid_clear_refs(5); where that is not possible nothing happens."""
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return


class MemoryWatch:
    """Looks at the peak now and then, and has memory given back when it is over the limit.

    Attributes:
        peak_mib: the highest seen so far.
    """

    def __init__(self, limit_mib: int, read: Callable[[], int] = peak_mib) -> None:
        """Begin; 0 is no limit."""
        self.limit_mib, self.peak_mib, self._read = limit_mib, 0, read
        if limit_mib:
            forget_peak()

    def look(self, give_back: Callable[[], str]) -> str:
        """What was done about too much memory, worded for people; empty while all is well.

        Args:
            give_back: frees what can be freed, and says what that was.
        """
        peak = self._read()
        self.peak_mib = max(self.peak_mib, peak)
        if not self.limit_mib or peak <= self.limit_mib:
            return ""
        done = give_back()
        forget_peak()
        return f"{peak} MiB of memory were taken, max_memory_mib is {self.limit_mib}: {done}"
