# SPDX-License-Identifier: Apache-2.0
"""Whether range sensors that look at the same place measure the same, and which of them is wrong where they do not.

Each pair is compared until it has agreed for long enough. A unit is judged by sensors that are at least as well known to measure metres;
distances along the rays, and pixels of another camera, show by themselves whose fault they are. Two depth cameras of which nothing is
known are both left out until it is. The network's depth is of pictures and poses alone: it tells units, not centimetres.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from occupancy_nn_ros.errors import ImplausibleError
from occupancy_nn_ros.runtime.depth_comparison import Kind, Verdict, compare
from occupancy_nn_ros.runtime.sight_lines import FLIPS, CloudSight, DepthSight, Sight
from occupancy_nn_ros.values import FloatArray, PosedCloud, PosedDepth


class Standing(IntEnum):
    """How well it is known that a sensor measures metres: by nothing; by definition or a setting; by motion or agreement."""

    NETWORK = 0
    DEPTH = 1
    TOLD = 2
    PROVEN = 3


AT_ONCE_S = 2.0
"""Looks that are further apart in time are not compared: things move, and so do errors of poses."""

SETTLES, SETTLES_NOTHING, ENDS = 2, 5, 6
"""So many comparisons in a row must say the same: of a fault; of contradiction without a rule; of metres, which ends the comparing."""

NOTHING_M = 0.5
"""A contradiction without a rule must last over this much motion: one place may be all glass."""

SAME_PLACE_M = 0.02
"""A cloud of the same moment whose rays begin this near to a depth camera may be made of its image."""

OFTEN, SELDOM = 20, 8
"""After so many comparisons that settled nothing, only each of so many looks is compared."""

SENSORS_TOLERANCE, NETWORK_TOLERANCE = 0.08, 0.15
"""Part of a distance by which right ones may differ."""

NETWORK_FACTOR = 2.0
"""What the network sees too near or too far by less is the network's own error."""

UNITS_M = (0.0001, 0.0002, 0.00025, 0.0005, 0.001, 1 / 256, 0.01, 0.0254, 0.1, 0.3048, 1.0)
"""In which depth cameras, converters and data sets count."""

SAME_UNIT = 0.1

TURNED_OVER = "depth is mirrored or turned over"
REASONS: dict[Kind, str] = {
    "factor": "depth is not in metres",
    "inverse": "depth is not in metres",
    "nothing": "depth contradicts other sensors",
    "along rays": "depth is along the rays",
    "focal length": "depth is of another camera",
    "mirrored left to right": TURNED_OVER,
    "flipped upside down": TURNED_OVER,
    "turned by 180 degrees": TURNED_OVER,
}


@dataclass(frozen=True)
class Objection:
    """Why a sensor is not to be used.

    Attributes:
        name: the sensor.
        judge: the one that it was compared with.
        verdict: what its numbers are.
        is_cloud: whether it is a LiDAR.
        is_mutual: whether nothing tells which of the two is right.
        is_new: whether it was used until now.
    """

    name: str
    judge: str
    verdict: Verdict
    is_cloud: bool
    is_mutual: bool
    is_new: bool

    def error(self, unit_m: float) -> ImplausibleError:
        """The same as an error, where a number was taken for so many metres."""
        reason = "cloud is not in metres" if self.is_cloud else REASONS[self.verdict.kind]
        return ImplausibleError(self._text(unit_m), reason=reason, spoils_map=self.is_new)

    def _text(self, unit_m: float) -> str:
        factor, setting = self.verdict.factor, f"cameras.{self.name}"
        if self.verdict.kind == "factor":
            what = f"its distances are {factor:.3g} times those that {self.judge} measures at the same place"
            if self.is_cloud:
                return f"{what}, expected metres"
            advice = f"set {setting}.depth_unit_m to {unit_that_fits(unit_m / factor):g}"
            return (
                f"{what}: one of the two is wrong; if it is this one, {advice}"
                if self.is_mutual
                else f"{what}: {advice}"
            )
        if self.verdict.kind == "inverse":
            return f"its numbers fall where the distances that {self.judge} measures grow, as disparity does: name the topic of the depth"
        if self.verdict.kind == "along rays":
            return f"its distances fit {self.judge} along the rays, expected along the optical axis (REP 118): convert them"
        if self.verdict.kind == "focal length":
            return (
                f"its pixels fit {self.judge} with about {factor:.2g} times the focal length of its camera_info, as if registered to "
                f"another camera: set {setting}.camera_info_topic to that one's"
            )
        if self.verdict.kind in FLIPS:
            return f"its image fits {self.judge} if it is {self.verdict.kind}: have its driver send it as its camera_info is"
        return (
            f"its distances contradict those of {self.judge} nearly everywhere: it is no depth, or one of the two is not where its "
            "frame says"
        )


@dataclass
class _Pair:
    """What one sensor is by another, comparison by comparison.

    Attributes:
        settled: the fault that holds now, None where there is none.
        is_over: it was shown to measure metres; nothing is compared any more.
    """

    settled: Verdict | None = None
    is_over: bool = False
    _looks: int = 0
    _compared_ns: tuple[int, int] = (-1, -1)
    _run: list[Verdict] = field(default_factory=list)
    _began: FloatArray = field(default_factory=lambda: np.zeros(3))
    _has_agreed: bool = False

    def is_due(self, judged: Sight, other: Sight) -> bool:
        """Whether both have looked anew, and it is time to compare."""
        if self.is_over or judged.stamp_ns == self._compared_ns[0] or other.stamp_ns == self._compared_ns[1]:
            return False
        self._looks += 1
        self._compared_ns = (judged.stamp_ns, other.stamp_ns)
        return self._looks <= OFTEN or self._looks % SELDOM == 0

    def add(self, verdict: Verdict, place: FloatArray) -> None:
        """Take a comparison that told something, made at a place (3,)."""
        if not self._run or self._run[-1].kind != verdict.kind:
            self._run, self._began = [], place
        self._run = [*self._run, verdict][-ENDS:]
        length, moved = len(self._run), float(np.linalg.norm(place - self._began))
        if verdict.kind == "metres":
            self._has_agreed = True
            self.is_over = length == ENDS
            self.settled = None if self.is_over else self.settled
        elif verdict.kind != "nothing" and length >= SETTLES:
            self.settled = Verdict(verdict.kind, float(np.median([each.factor for each in self._run])))
        elif length >= SETTLES_NOTHING and moved >= NOTHING_M and not self._has_agreed:
            self.settled = verdict


class SensorAgreement:
    """Compares range sensors, look by look. Not thread-safe: who maps owns it."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._latest: dict[str, Sight] = {}
        self._standings: dict[str, Standing] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._told: set[str] = set()
        self._made_of: set[tuple[str, str]] = set()

    def take(self, name: str, look: PosedDepth | PosedCloud, standing: Standing) -> None:
        """Compare a sensor's next look with the latest ones of the others."""
        self._keep(name, look, standing)
        sight = self._latest[name]
        for other, seen in self._latest.items():
            if other != name and abs(seen.stamp_ns - sight.stamp_ns) * 1e-9 <= AT_ONCE_S:
                self._compare(name, other)
                self._compare(other, name)

    def take_predicted(self, depths: Iterable[PosedDepth]) -> None:
        """Take the depth that the network sees in pictures, to judge the sensors' next looks by."""
        if Standing.DEPTH in self._standings.values():
            for depth in depths:
                self._keep(f"network on {depth.camera}", depth, Standing.NETWORK)

    def objection(self, name: str) -> Objection | None:
        """What other sensors say against one, None if nothing."""
        found = next(self._against(name), None)
        if found is None:
            self._told.discard(name)
            return None
        judge, verdict = found
        is_new = name not in self._told
        self._told.add(name)
        back = self._pairs.get((judge, name))
        is_mutual = self._standings[judge] == self._standings[name] and back is not None and back.settled is not None
        is_cloud = isinstance(self._latest[name], CloudSight)
        return Objection(name, f"'{judge}'", verdict, is_cloud, is_mutual, is_new)

    def _keep(self, name: str, look: PosedDepth | PosedCloud, standing: Standing) -> None:
        self._latest[name] = CloudSight(look) if isinstance(look, PosedCloud) else DepthSight(look)
        self._standings[name] = max(standing, self._standings.get(name, standing))

    def _compare(self, name: str, judge: str) -> None:
        """Compare one sensor with one that may judge it, if it is time."""
        if not self._may_judge(name, judge):
            return
        if self._is_made_of(judge, name):
            return
        pair, judged, other = self._pairs.setdefault((name, judge), _Pair()), self._latest[name], self._latest[judge]
        if not pair.is_due(judged, other):
            return
        is_network = self._standings[judge] == Standing.NETWORK
        verdict = compare(judged, other, NETWORK_TOLERANCE if is_network else SENSORS_TOLERANCE)
        if verdict is not None and self._counts(verdict, name, judge):
            pair.add(verdict, judged.place)
        if pair.is_over and self._standings[judge] >= Standing.TOLD:
            self._standings[name] = Standing.PROVEN

    def _may_judge(self, name: str, judge: str) -> bool:
        """Whether one sensor can tell anything of another."""
        mine, its = self._standings[name], self._standings[judge]
        if Standing.NETWORK in (mine, its):
            return mine == Standing.DEPTH
        return its >= mine or isinstance(self._latest[name], DepthSight)

    def _is_made_of(self, judge: str, name: str) -> bool:
        """Whether a cloud has the time and place of a depth camera's images, as one that was made of them: it says what they say."""
        one, other = self._latest[judge], self._latest[name]
        if not isinstance(one, CloudSight) or not isinstance(other, DepthSight):
            return False
        if one.stamp_ns == other.stamp_ns and float(np.linalg.norm(one.place - other.place)) < SAME_PLACE_M:
            self._made_of.add((judge, name))
        return (judge, name) in self._made_of

    def _counts(self, verdict: Verdict, name: str, judge: str) -> bool:
        """Whether this judge can find that of this sensor, as they stand now."""
        mine, its = self._standings[name], self._standings[judge]
        kind, factor = verdict.kind, max(verdict.factor, 1 / verdict.factor)
        if its == Standing.NETWORK:
            is_coarse = kind in ("metres", "inverse", *FLIPS) or (kind == "factor" and factor >= NETWORK_FACTOR)
            return mine == Standing.DEPTH and is_coarse
        if kind in ("metres", "along rays", "focal length", *FLIPS):
            return True
        if isinstance(self._latest[name], CloudSight):
            return kind == "factor" and its >= mine
        return its >= mine and mine != Standing.PROVEN

    def _against(self, name: str) -> Iterator[tuple[str, Verdict]]:
        """Sensors that speak against one, and what they say, the most reliable first."""
        judges = [judge for judged, judge in self._pairs if judged == name and not self._is_outranked(judge)]
        for judge in sorted(judges, key=lambda other: -self._standings[other]):
            settled = self._pairs[name, judge].settled
            if settled is not None and self._counts(settled, name, judge):
                yield judge, settled

    def _is_outranked(self, name: str) -> bool:
        """Whether a sensor is wrong itself by one that is better known."""
        return any(
            judged == name
            and pair.settled is not None
            and self._standings[judge] > self._standings[name]
            and self._counts(pair.settled, name, judge)
            for (judged, judge), pair in self._pairs.items()
        )


def unit_that_fits(unit_m: float) -> float:
    """The unit in use that is nearest to a measured one, or that one with two digits."""
    nearest = min(UNITS_M, key=lambda unit: abs(np.log(unit_m / unit)))
    return nearest if abs(np.log(unit_m / nearest)) < SAME_UNIT else float(f"{unit_m:.2g}")
