# SPDX-License-Identifier: Apache-2.0
"""Configuring that a service asks for, in a thread of its own: status, parameters and ``ros2 lifecycle get`` go on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future

CHANGE_STATE = "/change_state"


class ConfigureBeside:
    """Stands before a lifecycle node's ``~/change_state``.

    rclpy runs transitions in the thread of the executor. Configuring loads a network and compiles: seconds, or minutes on a first
    start. All other transitions are short, or change what the executor works with, and stay where they are.
    """

    def __init__(self, node: Any) -> None:
        """Take over the node's service, in a callback group of its own: an answer that is awaited keeps its group busy."""
        self._node = node
        self._thread: threading.Thread | None = None
        service = next(service for service in node.services if service.srv_name.endswith(CHANGE_STATE))
        self._change: Callable[[Any, Any], Any] = service.callback
        service.callback, service.callback_group = self._answer, MutuallyExclusiveCallbackGroup()
        service.callback_group.add_entity(service)

    def wait(self, timeout_s: float) -> bool:
        """Whether no configuring runs, after waiting for its end."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    async def _answer(self, request: Any, response: Any) -> Any:
        asked = request.transition
        if asked.label != "configure" and (asked.label or asked.id != Transition.TRANSITION_CONFIGURE):
            return self._run(request, response)
        executor = self._node.executor
        done = Future(executor=executor)

        def work() -> None:
            done.set_result(self._run(request, response))
            executor.wake()

        self._thread = threading.Thread(target=work, name="configure", daemon=True)
        self._thread.start()
        return await done

    def _run(self, request: Any, response: Any) -> Any:
        """The transition's answer; one that is not possible now is no success, and no silence either."""
        try:
            return self._change(request, response)
        except Exception as error:  # rclpy keeps its class to itself
            self._node.get_logger().error(f"no such transition now: {error}")
            response.success = False
            return response
