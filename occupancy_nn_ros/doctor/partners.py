# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of sensors among each other: whether their frames were taken, and come, at about the same times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.config import SyncConfig
from occupancy_nn_ros.doctor.findings import ENOUGH, SOME, Finding, Level, ok, warning
from occupancy_nn_ros.sync.frame_sync import DEAD_NS

LATE_S, LATE_PERIODS = 1.0, 3.0
"""A sensor that begins later, or ends earlier, than another by more than this was not there for a while."""

FULL = 0.8
"""Share of the slowest sensor's frames of which sets must be made for all to be well."""


def check_partners(
    stamps_ns: Mapping[str, Sequence[int]], lags_s: Mapping[str, Sequence[float]], sets: int, sync: SyncConfig
) -> list[Finding]:
    """Whether sets can be made of the sensors' frames, and were.

    Args:
        stamps_ns: of each sensor's messages.
        lags_s: how far the newest stamp of all sensors was ahead of each message when it came.
        sets: that were made.
        sync: settings of matching.
    """
    trains = {name: np.unique(np.asarray(stamps, dtype=np.int64)) for name, stamps in stamps_ns.items() if stamps}
    found = check_sync(stamps_ns, sync)
    if len(trains) < 2 or any(finding.level == "problem" for finding in found):
        return found
    reasons = [*_check_lags(lags_s, sync), *([] if sync.min_cameras else _check_presence(trains))]
    possible = min(len(train) for train in trains.values())
    if sets < FULL * possible and not reasons:
        text = f"{sets} sets were made where {possible} frames of each sensor came"
        reasons = [warning("sync", text, "see how many frames are dropped, and why: occupancy-nn play prints it")]
    return found + reasons


def _check_lags(lags_s: Mapping[str, Sequence[float]], sync: SyncConfig) -> Iterator[Finding]:
    for name, lags in lags_s.items():
        lag_s = float(np.median(lags)) if lags else 0.0
        if lag_s > sync.max_wait_s:
            text = f"frames of '{name}' come {lag_s:.1f} s after others of their time, and are waited for {sync.max_wait_s:g} s"
            advice = (
                f"speed up its driver or link, or raise sync.max_wait_s to {float(np.quantile(lags, ENOUGH)) + 0.1:.1f}"
            )
            yield warning("sync", f"{text}: most sets are made, or given up, without them", advice)


def _check_presence(trains: Mapping[str, npt.NDArray[np.int64]]) -> Iterator[Finding]:
    first, last = min(train[0] for train in trains.values()), max(train[-1] for train in trains.values())
    then = f"for up to {DEAD_NS * 1e-9:.0f} s nothing is mapped without it"
    for name, train in trains.items():
        period_s = float(np.median(np.diff(train))) * 1e-9 if len(train) > 1 else 0.0
        late_s, early_s = (train[0] - first) * 1e-9, (last - train[-1]) * 1e-9
        advice = "see why, or set sync.min_cameras to map with fewer"
        if late_s > max(LATE_S, LATE_PERIODS * period_s):
            yield warning(name, f"begins {late_s:.1f} s after the first sensor: {then}", advice)
        if early_s > max(LATE_S, LATE_PERIODS * period_s):
            yield warning(name, f"ends {early_s:.1f} s before the last sensor: {then}", advice)


def check_sync(stamps_ns: Mapping[str, Sequence[int]], sync: SyncConfig) -> list[Finding]:
    """Whether the sensors' frames were taken at about the same times."""
    trains = {name: np.unique(np.asarray(stamps, dtype=np.int64)) for name, stamps in stamps_ns.items() if stamps}
    if len(trains) < 2:
        return []
    slowest = min(trains, key=lambda name: len(trains[name]))
    offsets = {name: _offsets(trains[slowest], train) for name, train in trains.items() if name != slowest}
    spread = np.max([np.abs(o) for o in offsets.values()], axis=0)
    share = float((spread <= round(sync.tolerance_s * 1e9)).mean())
    worst = max(offsets, key=lambda name: float(np.median(np.abs(offsets[name]))))
    text = (
        f"{share:.0%} of the frames of '{slowest}' have partners within sync.tolerance_s = {sync.tolerance_s:g} s, "
        f"those of '{worst}' lie {np.median(np.abs(offsets[worst])) * 1e-6:.0f} ms away"
    )
    if share >= ENOUGH:
        return [ok("sync", text)]
    advice = (
        f"trigger the cameras together, synchronise their clocks, set cameras.{worst}.time_offset_s, "
        f"or raise sync.tolerance_s to {np.quantile(spread, ENOUGH) * 1e-9 + 0.001:.3f}"
    )
    level: Level = "problem" if share < SOME and not sync.min_cameras else "warning"
    return [Finding(level, "sync", text, advice)]


def _offsets(stamps: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """From each stamp to the nearest of the others."""
    after = np.clip(np.searchsorted(others, stamps), 1, max(1, len(others) - 1))
    candidates = np.stack([others[after - 1], others[np.minimum(after, len(others) - 1)]]) - stamps
    picks = np.abs(candidates).argmin(axis=0)
    return np.asarray(candidates[picks, np.arange(len(stamps))])
