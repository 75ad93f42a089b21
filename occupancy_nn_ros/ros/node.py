# SPDX-License-Identifier: Apache-2.0
"""The live node: ROS topics in, maps out, with the same intake and session as the offline player.

A lifecycle node. Configuring loads and warms the model, activating subscribes, deactivating keeps model and map. One single-threaded
executor receives; one worker thread makes, owns and runs network and map.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter

from occupancy_nn_ros.compute.free_cores import FreeCores
from occupancy_nn_ros.compute.threads import heed_load
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import LookupTransformError, OccupancyError, StopRequested
from occupancy_nn_ros.ros.context import NodeContext, Phase
from occupancy_nn_ros.ros.further_decoders import installed_decoders
from occupancy_nn_ros.ros.overrides import check_overrides
from occupancy_nn_ros.ros.parameters import StartSettings, check_changes, declare_config
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.ros.receiver import Receiver
from occupancy_nn_ros.ros.services import MapServices, path_inside
from occupancy_nn_ros.ros.tf2_transforms import uses_tf2
from occupancy_nn_ros.ros.transitions import ConfigureBeside
from occupancy_nn_ros.ros.watch import Watch
from occupancy_nn_ros.ros.worker import Worker
from occupancy_nn_ros.runtime.discovery import SensorStream
from occupancy_nn_ros.runtime.memory import plan_memory
from occupancy_nn_ros.runtime.outputs import output_topics
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.runtime.raw_keyframe import RawKeyframe
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import FloatArray
from occupancy_nn_ros.visualization.snapshot import Viewer

DEFAULT_NAME = "occupancy_nn"
LONG_S, PATIENCE_S = 5.0, 0.2
"""What takes longer than the first is logged again; the second is how soon a request to end is seen."""
DRAIN_S, QUIT_S = 30.0, 1.0
"""How long a keyframe may still take when the node is deactivated, and when the process is to end."""

PHASES: dict[Phase, str] = {
    "unconfigured": "neither model nor map is loaded",
    "inactive": "model and map are kept, nothing is received",
    "active": "looking for sensors",
}


class OccupancyNode(LifecycleNode):  # type: ignore[misc]
    """Wires subscriptions, worker, publishers, services and watch together."""

    def __init__(
        self,
        start: StartSettings | None = None,
        stopping: threading.Event | None = None,
        lenient: Collection[str] = (),
        viewers: tuple[Viewer, ...] = (),
        **arguments: Any,
    ) -> None:
        """Declare parameters, and begin to say how it is doing.

        Args:
            start: what the command line says.
            stopping: set once the process is to end; what takes long looks at it.
            lenient: parameters that are given to many nodes, so that one which this node lacks is no error.
            viewers: are shown each keyframe.
            arguments: passed on to the ROS node.

        Raises:
            ConfigError: a parameter or config file cannot be used, or a parameter is unknown.
            MissingDependencyError: a message type is not built.
        """
        super().__init__(DEFAULT_NAME, **arguments)
        self._configuring = ConfigureBeside(self)
        # rclpy's node has a property ``context`` of its own.
        self._shared = NodeContext(self, declare_config(self, start), stopping=stopping or threading.Event())
        self.autostart = bool(self._declare("autostart", True, "Configure and activate at once."))
        self._map_folder = str(self._declare("map_folder", "maps", "Where maps are saved and loaded."))
        self._start_map = str(self._declare("start_map", "", "Map file in map_folder to go on with."))
        self._warn_of_unknown_parameters(lenient)
        self._viewers = viewers
        self._receiver: Receiver | None = None
        self._outputs: OutputPublishers | None = None
        self._map_services: MapServices | None = None
        self._watch = Watch(self._shared)
        self.add_on_set_parameters_callback(self._on_parameters)

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load and warm the model, make the map, offer topics and services."""
        self._shared.phase = "configuring"
        return self._guarded("configure", self._configure, ("unconfigured", "inactive"), undo=self._free)

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Subscribe."""
        result = self._guarded("activate", self._activate, ("inactive", "active"), undo=self._deactivate)
        return super().on_activate(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Stop receiving; model and map stay."""
        super().on_deactivate(state)
        return self._guarded("deactivate", self._deactivate, ("active", "inactive"))

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Free model and map."""
        return self._guarded("clean up", self._free, ("inactive", "unconfigured"))

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Stop and free everything."""
        return self._guarded("shut down", self._stop, ("unconfigured", "unconfigured"))

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Return to a clean unconfigured state."""
        return self._guarded("recover", self._stop, ("unconfigured", "unconfigured"))

    def start(self) -> bool:
        """Configure and activate at once; False if either failed, which was logged."""
        success = TransitionCallbackReturn.SUCCESS
        return bool(self.trigger_configure() == success and self.trigger_activate() == success)

    def close(self, timeout_s: float = DRAIN_S) -> None:
        """Stop receiving and free everything, in at most three times so long; what is still being configured is left."""
        if not self._configuring.wait(timeout_s):
            return
        self._deactivate(timeout_s)
        self._free(timeout_s)
        self._watch.close()

    def _declare(self, name: str, default: Any, text: str) -> Any:
        return self.declare_parameter(name, default, ParameterDescriptor(description=text, read_only=True)).value

    def _warn_of_unknown_parameters(self, lenient: Collection[str]) -> None:
        known = self.get_parameters_by_prefix("")
        for text in check_overrides(self._parameter_overrides, known, lenient):
            self.get_logger().warning(text)

    def _on_new_map(self) -> None:
        if self._receiver is not None:
            self._receiver.take_map_frame()

    def _place(self, frame_id: str, stamp_ns: int) -> FloatArray:
        """Where a frame lies in the map; called in the executor's thread."""
        if self._receiver is None:
            raise LookupTransformError(f"where '{frame_id}' lies is not known while the node is not active")
        return self._receiver.place(frame_id, stamp_ns)

    def _configure(self) -> None:
        shared = self._shared
        by = "tf2_ros" if uses_tf2(shared.config) else "this package's own tree"
        shared.worker = Worker(self._process, self._on_worker_error)
        shared.session = self._wait(shared.worker.ask(self._make_session))
        self._outputs = OutputPublishers(shared)
        self._map_services = MapServices(shared, self._outputs, self._map_folder, self._on_new_map, self._place)
        config = shared.config
        shared.log.info(
            f"ready: source {config.source}, model {config.model}, map frame {config.map_frame}, transforms by {by}"
        )

    def _wait(self, session: Future[MappingSession]) -> MappingSession:
        """The session once it is made; logs what takes so long, and gives up when the process is to end."""
        waited_s = 0.0
        while wait([session], PATIENCE_S).not_done:
            self._shared.check_stop()
            waited_s += PATIENCE_S
            if waited_s % LONG_S < PATIENCE_S:
                self._shared.log.info(f"still {self._shared.doing}, {waited_s:.0f} s")
        return session.result()

    def _say(self, doing: str) -> None:
        self._shared.check_stop()
        self._shared.doing = doing
        self._shared.log.info(doing)

    def _make_session(self) -> MappingSession:
        """Called in the worker's thread.

        OpenMP keeps a team of threads for each thread that calls it. Were the model warmed in another one, there would be
        more of them than cores, and they would sleep at each barrier: on two cores a keyframe took 700 ms, not 480 to 670.
        """
        config = self._fitting_config()
        self._say(f"loading model {config.model}" if config.source == "network" else "making the map")
        session = MappingSession(config, OccupancyPipeline(config), installed_decoders())
        heed_load(FreeCores())
        session.pipeline.between_stages = self._shared.check_stop
        session.viewers = self._viewers
        session.warm_up(self._say)
        self._load_start_map(session)
        return session

    def _fitting_config(self) -> Config:
        """The settings, cut to what fits into ``max_memory_mib``; said where there is such a limit."""
        plan = plan_memory(self._shared.config)
        self._shared.config = plan.config
        if plan.config.max_memory_mib:
            self._shared.log.info(f"memory: at most {plan}, max_memory_mib is {plan.config.max_memory_mib}")
        for text in plan.left_out:
            self._shared.log.warning(f"to keep within max_memory_mib, {text}")
        return plan.config

    def _load_start_map(self, session: MappingSession) -> None:
        """Go on with a saved map. One that is not there is none yet: the first start must not differ from the others."""
        if not self._start_map:
            return
        path = path_inside(self._map_folder, self._start_map)
        if path.exists():
            session.load_map(path)
        self._shared.log.info(f"start map {path}: {'loaded' if path.exists() else 'not there yet, nothing is known'}")

    def _activate(self) -> None:
        outputs = self._outputs
        if self._shared.session is None or outputs is None:
            raise OccupancyError("the node is not configured")

        def offer_depths(sensors: Sequence[SensorStream]) -> None:
            outputs.add(output_topics(self._shared.config, sensors))

        self._receiver = Receiver(self._shared, self._offer, offer_depths)
        self._watch.attach(self._receiver, outputs)

    def _deactivate(self, timeout_s: float = DRAIN_S) -> None:
        self._watch.detach()
        if self._receiver is not None:
            self._receiver.close()
        self._receiver = None
        worker = self._shared.worker
        if worker is not None and not worker.drain(timeout_s) and not self._shared.stopping.is_set():
            self._shared.log.error(f"a keyframe did not end within {timeout_s:.0f} s")

    def _free(self, timeout_s: float = DRAIN_S) -> None:
        patience_s = min(timeout_s, QUIT_S) if self._shared.stopping.is_set() else timeout_s
        is_free = self._shared.worker is None or self._shared.worker.stop(patience_s)
        if not is_free and not self._shared.stopping.is_set():
            self._shared.log.error(f"the worker did not stop within {timeout_s:.0f} s")
        self._watch.detach_outputs()
        for part in (self._map_services, self._outputs):
            if part is not None:
                part.close()
        self._shared.worker, self._shared.session = None, None
        self._map_services, self._outputs = None, None

    def _stop(self) -> None:
        self._deactivate()
        self._free()

    def _offer(self, keyframes: Sequence[RawKeyframe]) -> None:
        """Called in the executor's thread with keyframes that are ready."""
        if self._shared.worker is not None and not self._shared.is_paused:
            for keyframe in keyframes:
                self._shared.worker.offer(keyframe)

    def _process(self, raw: RawKeyframe) -> None:
        """Called in the worker's thread."""
        session, publishers, receiver = self._shared.session, self._outputs, self._receiver
        if session is None or publishers is None or receiver is None or receiver.intake is None:
            return
        if session.is_late(raw, receiver.intake.newest_ns):
            return
        messages = session.process(raw, receiver.map_frame, publishers.wanted())
        publishers.publish(messages)
        total_s = max(0.0, (self._shared.now_ns() - raw.stamp_ns) * 1e-9)
        session.latency.add({"stamp_to_grid": total_s, "without_network": total_s - session.latency.newest("predict")})
        if self._shared.worker is not None and not self._shared.worker.has_item:
            session.look_again()

    def _on_worker_error(self, error: BaseException) -> None:
        if self._shared.stopping.is_set():  # cut between two stages, or its publishers are gone
            return
        text = "".join(traceback.format_exception(error))
        self._shared.log.error(f"a keyframe was lost: {text}", throttle_duration_sec=5.0)
        if self._shared.session is not None:
            self._shared.session.dropped["keyframe failed"] += 1

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        result, config = check_changes(
            self, self._shared.config, changes, is_configured=self._shared.phase != "unconfigured"
        )
        if result.successful and config != self._shared.config:
            self._shared.config = config
            if self._receiver is not None:
                self._receiver.reconfigure(config)
            if self._shared.session is not None and self._shared.worker is not None:
                session = self._shared.session
                self._shared.worker.ask(lambda: session.reconfigure(config))
        return result

    def _guarded(
        self,
        what: str,
        body: Callable[[], object],
        phases: tuple[Phase, Phase],
        undo: Callable[[], object] | None = None,
    ) -> TransitionCallbackReturn:
        """Run a transition from one phase to another, log it, and undo what it did if it fails.

        rclpy swallows exceptions in transitions.
        """
        result = TransitionCallbackReturn.SUCCESS
        try:
            body()
        except StopRequested:
            result = TransitionCallbackReturn.FAILURE
        except OccupancyError as error:
            self._shared.log.error(f"cannot {what}: {error}")
            result = TransitionCallbackReturn.FAILURE
        except Exception:
            self._shared.log.error(f"cannot {what}: {traceback.format_exc()}")
            result = TransitionCallbackReturn.ERROR
        is_done = result == TransitionCallbackReturn.SUCCESS
        if undo is not None and not is_done:
            undo()
        self._shared.phase = phases[1] if is_done else phases[0]
        self._shared.log.info(f"{self._shared.phase}: {PHASES[self._shared.phase]}")
        return result
