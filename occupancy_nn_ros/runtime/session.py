# SPDX-License-Identifier: Apache-2.0
"""One mapping run, whatever carries the bytes: raw keyframes in, messages to send out, and how it is doing.

The live node and the offline player both drive an :class:`~occupancy_nn_ros.runtime.intake.Intake` and one of these.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import ImplausibleError, OccupancyError
from occupancy_nn_ros.mapping.map_file import read_map_frame
from occupancy_nn_ros.mapping.moving import MovementTracker
from occupancy_nn_ros.messages.status import NodeState, NodeStatus
from occupancy_nn_ros.runtime.camera_outputs import due_depths, due_pictures
from occupancy_nn_ros.runtime.decoding import OWN_ONLY, FurtherDecoders, decode_keyframe
from occupancy_nn_ros.runtime.doubts import NO_DROP_OFFS, SETTINGS, lasting, setting_problems
from occupancy_nn_ros.runtime.free_space import FreeSource
from occupancy_nn_ros.runtime.intake import Intake
from occupancy_nn_ros.runtime.latency import LatencyRecorder
from occupancy_nn_ros.runtime.map_shown import MapShown
from occupancy_nn_ros.runtime.map_source import MapSource
from occupancy_nn_ros.runtime.memory import MemoryWatch
from occupancy_nn_ros.runtime.outputs import (
    OUTPUTS,
    PICTURES,
    OutMessage,
    OutputEncoder,
    free_topic,
)
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline, PointAnswers
from occupancy_nn_ros.runtime.plausibility import Plausibility
from occupancy_nn_ros.runtime.raw_keyframe import RawFrame, RawKeyframe
from occupancy_nn_ros.values import FloatArray, Keyframe, MapView, VoxelState
from occupancy_nn_ros.visualization.snapshot import Snapshot, Viewer

RATE_WINDOW = 10

LATE = "waited longer than keyframes.max_age_s"


class MappingSession:
    """Decodes keyframes, fuses them, and encodes what is wanted. Not thread-safe: one worker owns it.

    Attributes:
        pipeline: the network and the map.
        plausibility: judges what the sensors send.
        memory: keeps an eye on what the process takes.
        latency: seconds by stage of recent map updates.
        keyframes: map updates so far.
        dropped: frames and keyframes that could not be used, by reason.
        problems: the latest message of each kind of trouble, worded for people.
        viewers: are shown each keyframe.
    """

    def __init__(self, config: Config, pipeline: OccupancyPipeline, further: FurtherDecoders = OWN_ONLY) -> None:
        """Start to map.

        Args:
            config: all settings.
            pipeline: the network and the map, made with the same settings.
            further: reads messages that this package's own decoders do not know.
        """
        self.config, self.pipeline, self._further = config, pipeline, further
        self.latency, self.memory = LatencyRecorder(), MemoryWatch(config.max_memory_mib)
        self.plausibility = Plausibility()
        self.keyframes = 0
        self.dropped: Counter[str] = Counter()
        self.problems: dict[str, str] = setting_problems(config)
        if doubt := pipeline.body.doubt(config.map):
            self.problems["robot.body"] = doubt
        self.frame_id = config.map_frame
        self.viewers: tuple[Viewer, ...] = ()
        self._has_content = False
        self._encoder, self._shown = OutputEncoder(config), MapShown()
        self._recent: deque[int] = deque(maxlen=RATE_WINDOW)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest data in the map, or None before there is any."""
        return self._recent[-1] if self._recent else None

    def process(self, raw: RawKeyframe, frame_id: str, wanted: Collection[str]) -> list[OutMessage]:
        """Fuse one keyframe and encode the wanted outputs that are due.

        Args:
            raw: from the intake.
            frame_id: the map frame's name.
            wanted: names of the outputs that somebody listens to.
        """
        began = time.perf_counter()
        if self._has_content and frame_id != self.frame_id:
            self._drop(
                "keyframe in another frame",
                f"the map is in '{self.frame_id}', a keyframe in '{frame_id}': clear the map",
            )
            return []
        self.frame_id = frame_id
        keyframe = self._decode(raw)
        if keyframe is None:
            return []
        decoded = time.perf_counter()
        if self._recent and raw.stamp_ns < self._recent[-1]:
            self._encoder.reset()
            self._recent.clear()
        try:
            clock = self.pipeline.fuse(keyframe)
        except (OccupancyError, ValueError) as error:
            self._drop("keyframe failed", f"keyframe at {raw.stamp_ns * 1e-9:.3f} s: {error}")
            return []
        if self.pipeline.prediction is not None:
            self.plausibility.take_predicted(self.pipeline.prediction.depths)
        if self.pipeline.depth_model is not None:
            self.dropped |= self.pipeline.depth_model.left_out  # totals: the larger count is the newer one
        if self.config.grid.max_step_down_m > 0 and not (keyframe.depths or keyframe.clouds):
            self.problems["drop-offs"] = NO_DROP_OFFS
        self.keyframes += 1
        self._has_content = True
        self._recent.append(keyframe.stamp_ns)
        encoding = time.perf_counter()
        messages = self._encode(raw, keyframe, wanted)
        self._note_left_out()
        self._note_poses()
        encoded = time.perf_counter()
        times = {"decode": decoded - began, **clock.seconds(), "encode": encoded - encoding}
        times["total"] = time.perf_counter() - began
        self.latency.add(times)
        self._show(keyframe, times)
        if trouble := self.memory.look(self.pipeline.give_back_memory):
            self.problems["memory"] = trouble
        return messages

    def look_again(self) -> None:
        """Fuse a second look at an earlier keyframe if one is due: for when outputs are sent and no newer keyframe waits."""
        try:
            clock = self.pipeline.look_again()
        except (OccupancyError, ValueError) as error:
            self._drop("second look failed", str(error))
            return
        if clock is not None:
            self.latency.add(clock.seconds())

    def is_late(self, raw: RawKeyframe, newest_ns: int) -> bool:
        """Whether a keyframe waited too long to be of use, and is counted as dropped.

        Args:
            raw: from the intake.
            newest_ns: the newest stamp of any sensor now.
        """
        limit_s, waited_s = self.config.keyframes.max_age_s, (newest_ns - raw.ready_ns) * 1e-9
        if waited_s <= limit_s:
            return False
        self._drop(LATE, f"a keyframe waited {waited_s:.1f} s for those before it: the computer is too slow for them")
        return True

    def final_outputs(self, wanted: Collection[str]) -> list[OutMessage]:
        """The wanted outputs for the map as it is now, whatever their rate."""
        topics = [topic for topic in OUTPUTS if topic.name in wanted]
        source = self._shown.source(self.pipeline, self.config, self.frame_id, topics)
        return [] if source is None else self._encoder.encode(topics, source)

    def unknown_grids(self, wanted: Collection[str]) -> list[OutMessage]:
        """The wanted grids over the map's window, unknown everywhere; none before there is a map."""
        view = self.view()
        if view is None:
            return []
        blank = replace(view, state=np.full_like(view.state, VoxelState.UNKNOWN))
        topics = [topic for topic in OUTPUTS if topic.name in wanted and topic.group == "grid" and topic.is_latched]
        return self._encoder.encode(topics, MapSource(blank, self.config))

    def view(self) -> MapView | None:
        """A copy of the map, or None before the first keyframe."""
        return self.pipeline.view(self.frame_id)

    def warm_up(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Run everything once on made-up input, so that the first keyframe is as fast as the others.

        Args:
            say: told what comes next.
        """
        self.pipeline.warm_up(say)

    def clear(self) -> None:
        """Forget the map."""
        self.pipeline.clear()
        self._shown.tracker = MovementTracker()
        self._has_content = False
        if not self.keyframes:
            self.frame_id = self.config.map_frame

    def reconfigure(self, config: Config) -> None:
        """Take settings that may change while running."""
        self.config = config
        others = {kind: text for kind, text in self.problems.items() if not kind.startswith(SETTINGS)}
        self.problems = others | setting_problems(config)
        self.pipeline.reconfigure(config)
        self._encoder.config = config

    def load_map(self, path: Path) -> None:
        """Replace the map by a saved one.

        Before the first keyframe the map takes the file's frame, unless another was configured: frames that are found by
        themselves are not known yet.

        Raises:
            MapFileError: the file cannot be used, or holds a map of another frame; the map stays as it was.
        """
        is_open = not self.pipeline.has_map and self.config.map_frame == Config().map_frame
        frame_id = read_map_frame(path) if is_open else self.frame_id
        self.pipeline.load_map(path, frame_id)
        self.frame_id, self._has_content = frame_id, True

    def query(self, points_m: FloatArray, *, interpolate: bool) -> PointAnswers:
        """What the map knows at points (N, 3) of the map frame."""
        return self.pipeline.query(points_m, interpolate=interpolate)

    def troubles(self) -> tuple[Counter[str], dict[str, str]]:
        """Copies of ``dropped`` and ``problems`` for another thread; a plain copy of a dictionary is one step."""
        return Counter(dict(self.dropped)), dict(self.problems)

    def status(
        self, intake: Intake, now_ns: int, state: NodeState, elsewhere: Mapping[str, int] | None = None
    ) -> NodeStatus:
        """Figures for ``MapStatus`` and diagnostics; may be called while the worker is at work, and so reads copies.

        Args:
            intake: counts what arrives.
            now_ns: time of the status.
            state: what the node does.
            elsewhere: keyframes dropped before they came here, by reason.
        """
        latency, recent = self.latency.summary(), tuple(self._recent)
        held_back, (lost, problems) = dict(self._encoder.held_back), self.troubles()
        held = Counter({f"{name}: over outputs.voxels_max_mb_s": n for name, n in held_back.items()})
        dropped = sorted((intake.dropped + lost + held + Counter(elsewhere)).items())
        span_s = (recent[-1] - recent[0]) * 1e-9 if len(recent) > 1 else 0.0
        return replace(
            NodeStatus(now_ns),
            frame_id=self.frame_id,
            state=state,
            keyframes=self.keyframes,
            keyframe_rate=(len(recent) - 1) / span_s if span_s > 0 else 0.0,
            map_age=max(0.0, (now_ns - recent[-1]) * 1e-9) if recent else -1.0,
            camera_names=tuple(intake.sensors),
            frames_received=tuple(intake.received[name] for name in intake.sensors),
            drop_reasons=tuple(reason for reason, _ in dropped),
            drop_counts=tuple(count for _, count in dropped),
            doubts=lasting({**intake.problems, **problems}, [reason for reason, _ in dropped]),
            stages=tuple(latency),
            latency_p50_ms=tuple(item.p50_ms for item in latency.values()),
            latency_p95_ms=tuple(item.p95_ms for item in latency.values()),
            device_memory_bytes=self.pipeline.device_memory_bytes,
        )

    def _show(self, keyframe: Keyframe, times: Mapping[str, float]) -> None:
        viewers = [viewer for viewer in self.viewers if viewer.wants()]
        view = self.view() if viewers else None
        if view is None:
            return
        depths = () if self.pipeline.prediction is None else self.pipeline.prediction.depths
        latency_ms = {stage: seconds * 1e3 for stage, seconds in times.items()}
        for viewer in viewers:
            viewer.offer(Snapshot(keyframe.images, depths, view, latency_ms, dict(self.dropped)))

    def _encode(self, raw: RawKeyframe, keyframe: Keyframe, wanted: Collection[str]) -> list[OutMessage]:
        """The wanted outputs of a keyframe that are due: of the map, and of what its cameras see."""
        topics = self._encoder.due(OUTPUTS, raw.stamp_ns, wanted)
        prediction = self.pipeline.prediction
        depths = due_depths(self._encoder, raw, prediction, wanted)
        pictures = due_pictures(self._encoder, keyframe, prediction, self.config.base_frame, wanted)
        shown = [*(source.depth for _, source in depths), *(depth for each in pictures for _, depth in each.looks)]
        source = self._shown.source(self.pipeline, self.config, self.frame_id, topics, shown)
        messages = [] if source is None else self._encoder.encode(topics, source)
        for due, depth in depths:
            messages += self._encoder.encode(due, depth)
        messages += [message for each in pictures for message in self._encoder.encode([PICTURES], each)]
        for frame in raw.frames:
            free = self._encoder.due([free_topic(frame.sensor.name)], frame.stamp_ns, wanted)
            messages += self._encoder.encode(free, FreeSource(self.pipeline.map, frame)) if free else []
        return messages

    def _note_left_out(self) -> None:
        """Say that the network gave numbers that are none; what a GPU counted comes with the outputs."""
        counted, reason = self.pipeline.map.left_out, "predicted voxel that is not finite"
        voxels = counted if isinstance(counted, int) else self._shown.left_out
        if voxels > self.dropped[reason]:
            self.dropped[reason] = voxels
            self.problems[reason] = f"the network gave NaN or infinity for {voxels} voxels so far, which were left out"

    def _note_poses(self) -> None:
        """Say once that poses and pictures disagree: odometry, stamps, mounting or focal lengths are off."""
        alignment = self.pipeline.alignment
        if alignment is not None and "poses" not in self.problems and (text := alignment.disagreement):
            self.problems["poses"] = (
                f"{text}; occupancy-nn calibrate-cameras BAG tells which calibration or stamps are off"
            )

    def _decode(self, raw: RawKeyframe) -> Keyframe | None:
        """The keyframe's sensors decoded; a bad frame costs itself, and the set if too few cameras remain."""
        judge = partial(self.plausibility.check, raw.T_map_base, self.frame_id)
        keyframe, bad = decode_keyframe(raw, self.config.sync.min_cameras, judge, self._further)
        for frame, error in bad:
            self._refuse(frame, error)
        self.problems |= self.plausibility.doubts()
        for name, count in self.plausibility.left_out.items():
            reason = f"{name}: pixels or points at the end of the range"
            if count > self.dropped[reason] and reason not in self.problems:
                self.problems[reason] = f"{name}: {self.plausibility.range_ends[name]}"
            self.dropped[reason] = count
        if keyframe is None:
            text = f"keyframe at {raw.stamp_ns * 1e-9:.3f} s has {len(raw.frames) - len(bad)} usable frames"
            self._drop("keyframe without usable frames", text)
        return keyframe

    def _refuse(self, frame: RawFrame, error: Exception) -> None:
        """Count a frame that is not used; what an impostor has told the map so far is forgotten with all the rest."""
        text = f"{frame.sensor.topic} at {frame.stamp_ns * 1e-9:.3f} s: {error}"
        reason = "frame does not decode"
        if isinstance(error, ImplausibleError):
            reason = error.reason
            if error.spoils_map and self.keyframes:
                self.clear()
                text += "; the map is begun anew"
        else:
            self.plausibility.forget(frame.sensor.name)
        self._drop(f"{frame.sensor.name}: {reason}", text)

    def _drop(self, reason: str, text: str) -> None:
        self.dropped[reason] += 1
        self.problems[reason] = text
