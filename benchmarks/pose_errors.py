# SPDX-License-Identifier: Apache-2.0
"""How good odometry has to be: the final map of simulated drives whose poses are wrong by known amounts, against the truth.

    python benchmarks/pose_errors.py --record      # the table of docs/benchmarks.md

Pictures are as imperfect as real ones; mounting and intrinsics are exact, so that poses alone differ. Maps are judged in the robot's
neighbourhood at the end of the drive: with drift, the last pose is where truth and map meet.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import records
from scipy.spatial.transform import Rotation

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.evaluation.held_out_worlds import HELDOUT_WORLDS
from occupancy_nn_ros.evaluation.imperfect import imperfect
from occupancy_nn_ros.evaluation.metrics import Counts, count_near, interior, score_map, with_border
from occupancy_nn_ros.evaluation.truth import (
    RATE_HZ,
    EverSeen,
    TrueKeyframe,
    WorldTruth,
    in_range,
    planned_drive,
    rendered,
    seen_voxels,
)
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.layouts import build_world
from occupancy_nn_ros.simulation.measurement_errors import EXACT, MeasurementErrors, delayed_poses
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig, named_rig
from occupancy_nn_ros.simulation.world import World
from occupancy_nn_ros.values import FloatArray, MapView, VoxelState

RANGE_M, DURATION_S = 8.0, 8.0


@dataclass(frozen=True)
class PoseError:
    """One way in which poses are wrong.

    Attributes:
        name: as it stands in the table.
        errors: drawn for each pose.
        distort: what odometry makes of the true poses (F, 4, 4) of a drive.
    """

    name: str
    errors: MeasurementErrors = EXACT
    distort: Callable[[FloatArray], FloatArray] = np.copy


def noisy(position_m: float, rotation_deg: float) -> PoseError:
    """Independent noise of each pose, standard deviations along and about each axis."""
    errors = MeasurementErrors(position_m=position_m, rotation_rad=float(np.deg2rad(rotation_deg)))
    return PoseError(f"noise {100 * position_m:g} cm, {rotation_deg:g}°", errors)


def drifting(share: float, turn_deg_per_m: float) -> PoseError:
    """Ways measured too long by a share, and a yaw that grows with the way."""
    return PoseError(
        f"drift {100 * share:g} % of the way, {turn_deg_per_m:g}°/m",
        distort=lambda poses: drifted_poses(poses, share, turn_deg_per_m),
    )


def late(offset_s: float) -> PoseError:
    """Pictures that are stamped too late beside the poses."""
    return PoseError(
        f"stamps {1000 * offset_s:g} ms late", distort=lambda poses: delayed_poses(poses, offset_s * RATE_HZ)
    )


ERRORS = {
    "exact": PoseError("exact"),
    "noise1": noisy(0.005, 0.15),
    "noise2": noisy(0.01, 0.3),
    "noise3": noisy(0.02, 0.6),
    "noise4": noisy(0.05, 1.5),
    "drift1": drifting(0.01, 0.3),
    "drift2": drifting(0.03, 1.0),
    "drift3": drifting(0.1, 3.0),
    "late1": late(0.02),
    "late2": late(0.05),
    "late3": late(0.1),
}


def drifted_poses(poses: FloatArray, share: float, turn_deg_per_m: float) -> FloatArray:
    """Poses (F, 4, 4) as odometry with drift tells them, in the frame in which the last one is right."""
    told = [poses[0]]
    for before, after in itertools.pairwise(poses):
        step = np.linalg.inv(before) @ after
        turn = np.deg2rad(turn_deg_per_m) * float(np.linalg.norm(step[:3, 3]))
        step[:3, 3] *= 1 + share
        step[:3, :3] = Rotation.from_rotvec((0, 0, turn)).as_matrix() @ step[:3, :3]
        told.append(told[-1] @ step)
    return np.asarray(poses[-1] @ np.linalg.inv(told[-1]) @ np.stack(told))


class JudgedDrive:
    """A drive that was rendered once, and what is true around it."""

    def __init__(self, world: World, rig: Rig, config: Config) -> None:
        """Drive, render, and note what the cameras saw."""
        self.world, self.rig, self.config = world, rig, config
        self.drive: Drive = planned_drive(world, DURATION_S)
        with WorldRenderer(world) as renderer:
            self.frames: list[TrueKeyframe] = list(rendered(renderer, rig, self.drive))
        self.truth, self.ever = WorldTruth(world), EverSeen(world, config.voxel_size_m)
        follower = OccupancyPipeline(replace(config, source="depth"))
        for frame in self.frames:
            follower.map.move_to(frame.depths.T_map_base)
            window = follower.map.window
            seen = seen_voxels(window, frame.depths.depths, RANGE_M)
            self.ever.add(window, seen & in_range(window, frame.depths.T_map_base, RANGE_M))

    def score(self, predictor: Predictor, error: PoseError, *, align: bool) -> tuple[Counts, Counts]:
        """Map the drive with wrong poses; counts of its voxels, exact and with a tolerance of one voxel."""
        predictor.reset()
        config = replace(self.config, network=replace(self.config.network, align_poses=align))
        mapper = OccupancyPipeline(config, predictor)
        told = replace(self.drive, T_map_base=error.distort(self.drive.T_map_base))
        for frame in imperfect(self.frames, self.rig, told, self.world.seed, error.errors):
            mapper.step(frame.images)
        view = mapper.view("odom")
        if view is None:
            raise SystemExit("no map came of the drive")
        return self._judge(view)

    def _judge(self, view: MapView) -> tuple[Counts, Counts]:
        true = self.truth.view(view)
        occupied = true.state == VoxelState.OCCUPIED
        judged = with_border(self.ever.mask(view.window)) & ~interior(occupied)
        judged &= in_range(view.window, self.drive.T_map_base[-1], RANGE_M)
        return score_map(view, true, judged), count_near(view.state == VoxelState.OCCUPIED, occupied, judged)


def measure(drives: Sequence[JudgedDrive], predictor: Predictor, error: PoseError) -> records.Row:
    """One row of the table: with poses aligned, and as they are told."""
    row: records.Row = {"name": error.name}
    for suffix, align in (("", True), ("_as_told", False)):
        found = [drive.score(predictor, error, align=align) for drive in drives]
        exact, near = (sum((pair[n] for pair in found[1:]), found[0][n]) for n in (0, 1))
        row |= {f"iou{suffix}": exact.iou, f"mcc{suffix}": exact.mcc, f"f_score{suffix}": near.f_score}
    return row


def main() -> None:
    """Measure and perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("errors", nargs="*", metavar="ERROR", help=f"of {', '.join(ERRORS)} (default: all)")
    parser.add_argument("--worlds", nargs="+", default=list(HELDOUT_WORLDS[:2]), metavar="KIND")
    parser.add_argument("--seed", type=int, default=9000)
    parser.add_argument("--rig", default="surround4")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--record", action="store_true", help="keep the rows in benchmarks/results/")
    args = parser.parse_args()
    config = Config(model=args.model)
    predictor = Predictor.load(config.model, config.network)
    drives = [JudgedDrive(build_world(kind, args.seed), named_rig(args.rig), config) for kind in args.worlds]
    for name in args.errors or ERRORS:
        row = measure(drives, predictor, ERRORS[name])
        print({key: value if isinstance(value, str) else round(value, 3) for key, value in row.items()}, flush=True)
        if args.record:
            records.record("pose_errors", [row])


if __name__ == "__main__":
    main()
