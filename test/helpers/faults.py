# SPDX-License-Identifier: Apache-2.0
"""The small bag driven on without end over DDS, and the ways in which its messages can go wrong on their way."""

import dataclasses
import time
from pathlib import Path

import numpy as np

from occupancy_nn_ros.bags.reader import BagReader
from occupancy_nn_ros.geometry.poses import invert
from occupancy_nn_ros.messages import names
from occupancy_nn_ros.messages.decode import decode_camera_info, decode_tf
from occupancy_nn_ros.messages.headers import restamp
from occupancy_nn_ros.messages.images import decode_image
from occupancy_nn_ros.messages.sensors import encode_tf
from occupancy_nn_ros.messages.typestore import deserialize
from occupancy_nn_ros.values import StampedTransform

CAMERAS = ("back", "front")
FRAME_NS, TF_NS = 100_000_000, 50_000_000
EXPOSED_NS = 20_000_000
"""A frame's stamp lies so long after the transform before it: every pose is between two transforms."""

WALL_S_PER_FRAME = 0.04
"""Message time runs faster than the clock on the wall, so that seconds of trouble cost less."""

MATCHING_S = 1.0
"""A writer knows of its reader a moment before the reader knows of the writer, and what it sends in between is lost."""

SETTLING_REPORTS = 20
"""Status messages, one a second, within which everything that was sent must have been dealt with."""

NODE = "/occupancy_nn"
NEEDED = ("/tf", "/tf_static", *(f"/{camera}/{part}" for camera in CAMERAS for part in ("image_raw", "camera_info")))


@dataclasses.dataclass(frozen=True)
class Sent:
    """A message on its way: when it arrives, in message time, and what it is."""

    arrival_ns: int
    topic: str
    stamp_ns: int
    cdr: bytes


@dataclasses.dataclass(frozen=True)
class Report:
    """What a status message tells, and the node's memory at that time."""

    state: str
    keyframes: int
    received: dict[str, int]
    dropped: dict[str, int]
    rss_mb: float

    @property
    def chosen(self):
        """Keyframes that the intake chose, integrated or overtaken by newer ones."""
        return self.keyframes + self.dropped.get("worker busy: newer keyframe came first", 0)

    def since(self, before):
        """What came on top of an earlier report."""
        keys = self.dropped.keys() - {"worker busy: newer keyframe came first"}
        return Report(
            self.state,
            self.chosen - before.chosen,
            {name: count - before.received[name] for name, count in self.received.items()},
            {key: n for key in keys if (n := self.dropped[key] - before.dropped.get(key, 0))},
            self.rss_mb - before.rss_mb,
        )


NOTHING = Report("", 0, dict.fromkeys(CAMERAS, 0), {}, 0.0)


class Drive:
    """Publishes the bag's laps one after another, going on in time and in space, and reads the node's status."""

    def __init__(self, graph, bag):
        self.graph = graph
        self.start_ns = time.time_ns()
        self.frame = 0
        self.sent = dict.fromkeys(CAMERAS, 0)
        self.jump = np.eye(4)
        with BagReader(bag) as reader:
            messages = list(reader.messages())
        self.images = {c: [m.cdr for m in messages if m.topic == f"/{c}/image_raw"] for c in CAMERAS}
        self.infos = {c: next(m.cdr for m in messages if m.topic == f"/{c}/camera_info") for c in CAMERAS}
        self.static = next(m.cdr for m in messages if m.topic == "/tf_static")
        self.path = [decode_tf(m.cdr)[0].T_target_source for m in messages if m.topic == "/tf"]
        for topic in NEEDED:
            graph.offer(topic, message_type(topic))

    def pose(self, n):
        """(4, 4) of the robot at the n-th transform; each lap begins where the one before ended."""
        per_lap = len(self.images["front"]) * FRAME_NS // TF_NS
        laps, step = divmod(n, per_lap)
        lap = self.path[per_lap] @ invert(self.path[0])
        return self.jump @ np.linalg.matrix_power(lap, laps) @ self.path[step]

    def messages(self, frames):
        """The next frames as they are sent without any trouble, in order of arrival."""
        sent = []
        for n in range(self.frame, self.frame + frames):
            at = self.start_ns + n * FRAME_NS
            sent += [
                self.transform(2 * n, at),
                *self._frames(n, at + EXPOSED_NS),
                self.transform(2 * n + 1, at + TF_NS),
            ]
        self.frame += frames
        return sent

    def play(self, frames, *faults):
        """Send the next frames, each fault applied to the list of their messages, and a transform to close them."""
        messages = self.messages(frames)
        for fault in faults:
            messages = fault(messages)
        began, first_ns = time.monotonic(), messages[0].arrival_ns
        for message in sorted(messages, key=lambda item: item.arrival_ns):
            due = began + (message.arrival_ns - first_ns) / FRAME_NS * WALL_S_PER_FRAME
            while (left := due - time.monotonic()) > 0:
                self.graph.executor.spin_once(timeout_sec=left)
            self.send(message)

    def send(self, message):
        """Publish one message."""
        self.graph.publishers[message.topic].publish(message.cdr)
        camera, _, part = message.topic.strip("/").partition("/")
        if part == "image_raw":
            self.sent[camera] += 1

    def connect(self):
        """Wait for the node to listen, and give it the mounts."""
        self.graph.wait_for_node(NEEDED)
        self.graph.spin(MATCHING_S)
        self.graph.publishers["/tf_static"].publish(self.static)

    def transform(self, n, stamp_ns):
        """The message that places the robot at its n-th pose."""
        cdr = encode_tf([StampedTransform(stamp_ns, "odom", "base_link", self.pose(n))])
        return Sent(stamp_ns, "/tf", stamp_ns, cdr)

    def _frames(self, n, stamp_ns):
        for camera in CAMERAS:
            image = self.images[camera][n % len(self.images[camera])]
            for part, cdr in (("camera_info", self.infos[camera]), ("image_raw", image)):
                yield Sent(stamp_ns, f"/{camera}/{part}", stamp_ns, restamp(cdr, stamp_ns))


class Watcher:
    """Reads status, diagnostics and memory of a node in its own process."""

    def __init__(self, graph, node):
        from occupancy_nn_ros.ros.qos import STATUS_QOS

        self.graph, self.node = graph, node
        self.base = dict.fromkeys(CAMERAS, 0)
        graph.listen(f"{NODE}/status", names.MAP_STATUS, STATUS_QOS)
        graph.listen("/diagnostics", names.DIAGNOSTIC_ARRAY, STATUS_QOS)

    def next(self):
        """The next status."""
        received, diagnostics = self.graph.received[f"{NODE}/status"], self.graph.received["/diagnostics"]
        received.clear(), diagnostics.clear()
        self.graph.until(lambda: received and diagnostics)
        return self._report(received[-1])

    def settled(self, drive):
        """The first status in which nothing more happens after everything sent has arrived."""
        expected = {camera: drive.sent[camera] - self.base[camera] for camera in CAMERAS}
        report = self.next()
        for _ in range(SETTLING_REPORTS):
            last, report = report, self.next()
            if report.received == expected and (report.chosen, report.dropped) == (last.chosen, last.dropped):
                assert self.diagnosed() == report.dropped
                return report
        raise AssertionError(f"sent {expected}, but the node says {report}")

    def diagnosed(self):
        """What the newest /diagnostics counts as dropped, by reason; it goes out together with the status."""
        (entry,) = deserialize(names.DIAGNOSTIC_ARRAY, self.graph.received["/diagnostics"][-1]).status
        keys = {item.key: item.value for item in entry.values}
        return {key.removeprefix("dropped: "): int(n) for key, n in keys.items() if key.startswith("dropped: ")}

    def rss_mb(self):
        """Resident memory of the node's process."""
        text = Path(f"/proc/{self.node.process.pid}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024

    def _report(self, cdr):
        message = deserialize(names.MAP_STATUS, cdr)
        return Report(
            message.state,
            int(message.keyframes),
            dict(zip(message.camera_names, map(int, message.frames_received), strict=True)),
            dict(zip(message.drop_reasons, map(int, message.drop_counts), strict=True)),
            self.rss_mb(),
        )


def message_type(topic):
    """Type of one of the drive's topics."""
    if topic.startswith("/tf"):
        return names.TF_MESSAGE
    return names.IMAGE if topic.endswith("image_raw") else names.CAMERA_INFO


def changed(topic, change):
    """A fault that changes every message of a topic; ``change`` gives the messages that come in its place."""
    return lambda messages: [new for m in messages for new in (change(m) if m.topic == topic else [m])]


def without(topic):
    """Nothing arrives on a topic."""
    return changed(topic, lambda message: [])


def twice(topic):
    """Every message arrives a second time."""
    return changed(topic, lambda message: [message, message])


def late(topic, seconds):
    """Every message takes so long."""
    delay_ns = round(seconds * 1e9)
    return changed(topic, lambda m: [dataclasses.replace(m, arrival_ns=m.arrival_ns + delay_ns)])


def swapped(topic):
    """Messages arrive in pairs whose second comes first."""

    def swap(messages):
        own = [m for m in messages if m.topic == topic]
        places = [m.arrival_ns for m in own]
        order = [n ^ 1 if n ^ 1 < len(own) else n for n in range(len(own))]
        moved = [dataclasses.replace(own[n], arrival_ns=at) for n, at in zip(order, places, strict=True)]
        return [m for m in messages if m.topic != topic] + moved

    return swap


def rewritten(topic, write):
    """The bytes of every message are replaced by ``write(message)``."""
    return changed(topic, lambda m: [dataclasses.replace(m, cdr=write(m))])


def pixels(message):
    """(H, W, 3) of an image on its way."""
    return decode_image(names.IMAGE, message.cdr)[1]


def intrinsics(message):
    """The model in a camera_info on its way."""
    return decode_camera_info(message.cdr)[1]
