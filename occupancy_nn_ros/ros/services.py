# SPDX-License-Identifier: Apache-2.0
"""The node's services. The worker answers them between keyframes; the executor never waits for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future as WorkerFuture
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.task import Future

from occupancy_nn_ros.errors import MapFileError, OccupancyError
from occupancy_nn_ros.geometry.poses import make_transform
from occupancy_nn_ros.mapping.atomic_file import remove_leftovers
from occupancy_nn_ros.mapping.clearing import Box, clear_box
from occupancy_nn_ros.mapping.map_file import save_map
from occupancy_nn_ros.ros.context import NodeContext
from occupancy_nn_ros.ros.message_types import interface_class
from occupancy_nn_ros.ros.publishers import OutputPublishers
from occupancy_nn_ros.runtime.map_exports import is_for_others, save_for_others
from occupancy_nn_ros.runtime.session import MappingSession
from occupancy_nn_ros.values import FloatArray

Place = Callable[[str, int], FloatArray]
"""T_map_frame (4, 4) by a frame's name and a stamp in nanoseconds."""

MAX_QUERY_POINTS = 1_000_000


class MapServices:
    """clear, clear_box, pause, resume, save_map, load_map, query_occupancy."""

    def __init__(
        self,
        context: NodeContext,
        publishers: OutputPublishers,
        map_folder: str,
        on_new_map: Callable[[], None],
        place: Place,
    ) -> None:
        """Offer them under the node's own name.

        Args:
            context: what the parts of the node share.
            publishers: sends the whole map again once it was cleared or loaded.
            map_folder: where maps are saved and loaded; no path leads out of it.
            on_new_map: told, in the executor's thread, that the map may be in another frame now.
            place: tells where a frame lies in the map, at a stamp or at the newest that is known for 0.

        Raises:
            MissingDependencyError: a service type is not built.
        """
        self.context, self.publishers, self.map_folder = context, publishers, map_folder
        remove_leftovers(Path(map_folder).expanduser())
        self._on_new_map, self._place = on_new_map, place
        offered: dict[str, tuple[str, Callable[..., Any]]] = {
            "clear": ("std_srvs/srv/Trigger", self._clear),
            "clear_box": ("occupancy_nn_ros/srv/ClearBox", self._clear_box),
            "pause": ("std_srvs/srv/Trigger", self._pause),
            "resume": ("std_srvs/srv/Trigger", self._resume),
            "save_map": ("occupancy_nn_ros/srv/SaveMap", self._save_map),
            "load_map": ("occupancy_nn_ros/srv/LoadMap", self._load_map),
            "query_occupancy": ("occupancy_nn_ros/srv/QueryOccupancy", self._query),
        }
        self._services = [
            context.ros.create_service(interface_class(kind), f"~/{name}", call)
            for name, (kind, call) in offered.items()
        ]

    def close(self) -> None:
        """Withdraw them."""
        for service in self._services:
            self.context.ros.destroy_service(service)
        self._services.clear()

    async def _clear(self, request: Any, response: Any) -> Any:
        response = await self._answer(response, self._do_clear)
        self._on_new_map()
        return response

    async def _clear_box(self, request: Any, response: Any) -> Any:
        session = self.context.session
        try:
            box = self._box(request, "" if session is None else session.frame_id)
        except OccupancyError as error:
            response.success, response.message = False, str(error)
            return response

        def clear(session: MappingSession) -> str:
            response.cleared = clear_box(session.pipeline.map, box)
            self.publishers.forget()
            return ""

        return await self._answer(response, clear)

    def _box(self, request: Any, map_frame: str) -> Box:
        """The box of a request in the map frame.

        Raises:
            TransformError: it is no box, or where its frame lies is not known.
        """
        header, pose, size = request.pose.header, request.pose.pose, request.size
        p, q = pose.position, pose.orientation
        T_map_box = make_transform((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
        frame = header.frame_id.lstrip("/")
        if frame not in ("", map_frame):
            T_map_box = self._place(frame, header.stamp.sec * 1_000_000_000 + header.stamp.nanosec) @ T_map_box
        return Box(T_map_box, np.array((size.x, size.y, size.z)))

    async def _pause(self, request: Any, response: Any) -> Any:
        self.context.is_paused = True
        response.success, response.message = True, "keyframes are left out until resume"
        return response

    async def _resume(self, request: Any, response: Any) -> Any:
        self.context.is_paused = False
        response.success, response.message = True, "mapping"
        return response

    async def _save_map(self, request: Any, response: Any) -> Any:
        def save(session: MappingSession) -> str:
            name = request.file_path or f"map_{session.newest_ns or 0}.safetensors"
            path = path_inside(self.map_folder, name)
            view = session.view() if is_for_others(path) else None
            if view is not None:
                save_for_others(view, path, session.config.outputs.color_by)
            else:
                save_map(session.pipeline.map, path, session.frame_id)
            return str(path)

        return await self._answer(response, save)

    async def _load_map(self, request: Any, response: Any) -> Any:
        def load(session: MappingSession) -> str:
            path = path_inside(self.map_folder, request.file_path)
            session.load_map(path)
            self.publishers.forget()
            return f"loaded {path}"

        response = await self._answer(response, load)
        self._on_new_map()
        return response

    async def _query(self, request: Any, response: Any) -> Any:
        if len(request.points) > MAX_QUERY_POINTS:
            response.success = False
            response.message = f"{len(request.points)} points, expected at most {MAX_QUERY_POINTS}"
            return response
        points = np.array([(p.x, p.y, p.z) for p in request.points], dtype=np.float64).reshape(-1, 3)

        def query(session: MappingSession) -> str:
            answer = session.query(points, interpolate=bool(request.interpolate))
            response.frame_id = session.frame_id
            response.probability = answer.probability.tolist()
            response.state = answer.state.tolist()
            response.class_id = answer.classes.tolist()
            return f"{len(points)} points"

        return await self._answer(response, query)

    def _do_clear(self, session: MappingSession) -> str:
        session.clear()
        self.publishers.forget()
        return "the map is unknown everywhere"

    async def _answer(self, response: Any, work: Callable[[MappingSession], str]) -> Any:
        """Have the worker do something with the session, and report success and message."""
        session, worker = self.context.session, self.context.worker
        if session is None or worker is None:
            response.success, response.message = False, "the node is not configured"
            return response
        try:
            response.message = await self._wait(worker.ask(lambda: work(session)))
            response.success = True
        except (OccupancyError, RuntimeError, ValueError) as error:
            response.success, response.message = False, str(error)
        return response

    def _wait(self, answer: WorkerFuture[str]) -> Future:
        """A future that the executor can await, without blocking, for one of the worker's."""
        future = Future(executor=self.context.ros.executor)

        def done(finished: WorkerFuture[str]) -> None:
            error = finished.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(finished.result())
            if self.context.ros.executor is not None:
                self.context.ros.executor.wake()

        answer.add_done_callback(done)
        return future


def path_inside(map_folder: str, name: str) -> Path:
    """A path inside the map folder.

    Raises:
        MapFileError: it would lie outside.
    """
    folder = Path(map_folder).expanduser().resolve()
    path = (folder / name).resolve()
    if not name or not path.is_relative_to(folder) or path == folder:
        raise MapFileError(f"'{name}' is not a file inside the map folder {folder}")
    return path
