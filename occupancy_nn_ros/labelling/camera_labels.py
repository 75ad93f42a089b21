# SPDX-License-Identifier: Apache-2.0
"""Labels of keyframes by what their own pictures show: depth that views from different places of the whole recording agree on."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.compute.devices import choose_device
from occupancy_nn_ros.compute.threads import available_cores
from occupancy_nn_ros.errors import BagError, ImplausibleError, TrainingError
from occupancy_nn_ros.jobs.run import Report
from occupancy_nn_ros.labelling.agreement import Agreed, agree, finer
from occupancy_nn_ros.labelling.frames import FrameMaker, ShardWriter
from occupancy_nn_ros.labelling.left_out import LeftOut
from occupancy_nn_ros.labelling.motion_checks import CalibrationCheck, check_motion
from occupancy_nn_ros.labelling.plan import BagLabels, LabelPlan
from occupancy_nn_ros.labelling.recording_sweep import Look, RecordingSweep
from occupancy_nn_ros.labelling.space_votes import SpaceVotes
from occupancy_nn_ros.labelling.teacher import Teacher
from occupancy_nn_ros.network.checkpoint import find_model, load_checkpoint
from occupancy_nn_ros.runtime.decoding import decode_keyframe
from occupancy_nn_ros.runtime.own_body import OwnBody
from occupancy_nn_ros.runtime.plausibility import Plausibility
from occupancy_nn_ros.runtime.player import PlayProgress, plan_play, steps
from occupancy_nn_ros.training.shards import MOST_VIEWS
from occupancy_nn_ros.values import FloatArray, Keyframe, PosedDepth

LEAST_KEPT = 0.02
"""Share of all pixels on whose depth views must agree. With right poses and things to see it is 20 to 60 %."""

MOST_BYTES = 2 << 30
"""Memory for the depth images of a recording: four cameras for an hour."""

SWEEP_SHARE, LABEL_SHARE = 0.7, 0.15
"""Shares of the work, about: the network over all pictures, and the labels in the end."""


@dataclass(frozen=True)
class _Moment:
    """A keyframe without its pictures: where base and cameras were, and what is known of depth."""

    stamp_ns: int
    T_map_base: FloatArray
    depths: tuple[PosedDepth, ...]


class CameraLabeller:
    """Goes through one bag several times: for depth, for what a depth model makes of it if there is one, and for labels."""

    def __init__(self, reader: BagReader, plan: LabelPlan, report: Report) -> None:
        """Find cameras and frames, and load what measures depth.

        Raises:
            BagError: no cameras, or too many.
            CheckpointError: the network or the depth model cannot be used.
        """
        self.reader, self.plan, self.report = reader, plan, report
        found = plan_play(reader, replace(plan.config, source="network"))
        cameras = tuple(sensor for sensor in found.sensors if sensor.kind == "image")
        if not 1 <= len(cameras) <= MOST_VIEWS:
            raise BagError(f"{reader.path} has {len(cameras)} cameras, expected 1 to {MOST_VIEWS}")
        self.found, self.cameras = replace(found, sensors=cameras), cameras
        self.config = found.config
        self.body = OwnBody(self.config.robot.body)
        model = self.config.network.depth_model
        self.teacher = Teacher.load(Path(model).expanduser()) if model else None
        self.network = load_checkpoint(find_model(self.config.model)).network.to(
            choose_device(self.config.network.device)
        )
        self.left_out = LeftOut()

    def run(self, writer: ShardWriter) -> BagLabels:
        """Write the shards.

        Raises:
            BagError: the cameras hardly move, their views do not agree, or no two keyframes can be used; says why.
            TrainingError: the recording is too long, or covers too much space, for the memory.
        """
        moments = self._sweep()
        agreed = self._agree(moments)
        if self.teacher is not None:
            moments = self._ask_teacher(self.teacher, moments, agreed)
            agreed = self._agree(moments)
        votes = self._vote(moments, agreed)
        self._write(writer, moments, agreed, votes)
        return self.left_out.labels(writer, self.reader.path)

    def _sweep(self) -> list[_Moment]:
        """The network over all pictures."""
        network = replace(self.config.network, threads=self.config.network.threads or available_cores())
        moments, size = [], 0
        calibration = CalibrationCheck()
        keyframes = calibration.watch(self._keyframes(0.0, SWEEP_SHARE, count=True))
        for look in RecordingSweep(self.network, network).looks(keyframes):
            moments.append(self._moment(look))
            size += sum(depth.depth_m.nbytes for depth in moments[-1].depths)
            if size > MOST_BYTES:
                raise TrainingError(
                    f"{len(moments)} keyframes of {self.reader.path} take {size >> 20} MiB of depth images, "
                    f"expected at most {MOST_BYTES >> 20}; label parts of it, or with a larger --every"
                )
        self.left_out.expect_two(len(moments), self.reader.path)
        check_motion(self.reader.path, [moment.depths for moment in moments])
        calibration.judge(self.reader.path)
        return moments

    def _moment(self, look: Look) -> _Moment:
        keyframe = self.body.leave_out(replace(look.keyframe, depths=look.depths))
        return _Moment(keyframe.stamp_ns, keyframe.T_map_base, keyframe.depths)

    def _agree(self, moments: Sequence[_Moment]) -> list[tuple[Agreed, ...]]:
        """What the views of the whole recording agree on, keyframe by keyframe."""
        depths = [depth for moment in moments for depth in moment.depths]
        every = iter(agree(depths))
        agreed = [tuple(islice(every, len(moment.depths))) for moment in moments]
        kept = sum(int((view.depth.depth_m > 0).sum()) for views in agreed for view in views)
        share = kept / max(1, sum(depth.depth_m.size for depth in depths))
        if share < LEAST_KEPT:
            raise BagError(
                f"views of {self.reader.path} agree on the depth of {share:.1%} of their pixels, expected at least {LEAST_KEPT:.0%}: "
                "poses, calibration or pictures do not fit each other",
                advice="occupancy-nn calibrate-cameras tells whether the calibration does",
            )
        return agreed

    def _ask_teacher(
        self, teacher: Teacher, moments: Sequence[_Moment], agreed: Sequence[tuple[Agreed, ...]]
    ) -> list[_Moment]:
        """Depth of the model of the user's choice, in metres by what the views agree on and by the ground."""
        teacher.learn_ground([view.depth for views in agreed for view in views])
        known = {moment.stamp_ns: index for index, moment in enumerate(moments)}
        taught = []
        for keyframe in self._keyframes(SWEEP_SHARE, 1 - LABEL_SHARE):
            index = known.get(keyframe.stamp_ns)
            if index is None:
                continue
            moment, depths = moments[index], []
            for image, view in zip(keyframe.images, agreed[index], strict=True):
                depth = teacher.measure(replace(image, T_map_cam=view.depth.T_map_cam), view.depth)
                if depth is None:
                    self.left_out.drop(
                        f"{image.camera}: nothing anchors the depth model's scale", "nothing anchors its scale"
                    )
                depths.append(depth if depth is not None else _nothing(view.depth))
            posed = self.body.leave_out(Keyframe(moment.stamp_ns, moment.T_map_base, depths=tuple(depths)))
            taught.append(replace(moment, depths=posed.depths))
        return taught

    def _vote(self, moments: Sequence[_Moment], agreed: Sequence[tuple[Agreed, ...]]) -> SpaceVotes:
        votes = SpaceVotes(self.config.voxel_size_m, self.config.map)
        for moment, views in zip(moments, agreed, strict=True):
            for view in views:
                votes.add(view.depth, moment.T_map_base)
        return votes

    def _write(
        self, writer: ShardWriter, moments: Sequence[_Moment], agreed: Sequence[tuple[Agreed, ...]], votes: SpaceVotes
    ) -> None:
        """Label the keyframes."""
        maker = FrameMaker(self.config.voxel_size_m, self.plan.scale, zlib.crc32(self.reader.path.stem.encode()))
        known = {moment.stamp_ns: views for moment, views in zip(moments, agreed, strict=True)}
        for keyframe in self._keyframes(1 - LABEL_SHARE, 1.0):
            views = known.get(keyframe.stamp_ns, ())
            scans = [view.depth for view in views]
            if not any((scan.depth_m > 0).any() for scan in scans):
                self.left_out.drop("keyframe of which no depth is sure", "no views agree with those of a keyframe")
                continue
            keyframe = keyframe.with_images_at(scan.T_map_cam for scan in scans)
            doubts = [view.doubtful for view in views]
            dense = [finer(scan) for scan in scans]  # labels of depth want a ray at the centre of each cell
            writer.add(maker.make(keyframe, dense, votes.settle_without(doubts, keyframe.T_map_base)))

    def _keyframes(self, done: float, until: float, *, count: bool = False) -> Iterator[Keyframe]:
        """Keyframes of all cameras, the same each time; reports progress, and counts what is left out if asked to."""
        intake, plausibility = self.found.intake(), Plausibility()

        def report(progress: PlayProgress) -> None:
            self.report(done + (until - done) * min(1.0, progress.done_s / max(progress.total_s, 1e-3)))

        for _, ready in steps(self.reader, intake, report):
            for raw in ready:
                judge = partial(plausibility.check, raw.T_map_base, intake.map_frame)
                keyframe, bad = decode_keyframe(raw, 0, judge)
                if keyframe is not None and len(keyframe.images) == len(self.cameras):
                    yield keyframe
                elif count:
                    for frame, error in bad:
                        reason = error.reason if isinstance(error, ImplausibleError) else "picture does not decode"
                        self.left_out.drop(f"{frame.sensor.name}: {reason}", f"{frame.sensor.topic}: {error}")
                    if not bad:
                        self.left_out.drop("keyframe without all cameras", "a camera stopped")
        if count:
            self.left_out.note(intake)


def _nothing(depth: PosedDepth) -> PosedDepth:
    return replace(depth, depth_m=np.zeros_like(depth.depth_m))
