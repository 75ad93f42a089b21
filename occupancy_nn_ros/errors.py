# SPDX-License-Identifier: Apache-2.0
"""Every error that the package raises on purpose; each message says what was got and what was expected."""


class OccupancyError(Exception):
    """Base of all errors raised on purpose; the command line prints its message as one line."""


class ConfigError(OccupancyError):
    """A configuration key is unknown, of the wrong type, or out of range."""


class CalibrationError(OccupancyError):
    """Intrinsics or distortion cannot describe a camera (NaN, zero focal length, unknown model)."""


class MessageError(OccupancyError):
    """Bytes do not decode as the message they claim to be."""


class OversizedError(MessageError):
    """A message is larger than any sensor's should be, and was not looked at."""


class ImageError(MessageError):
    """An image message decodes, but its pixels cannot be used (unknown encoding, zero size, wrong step)."""


class UnknownEncodingError(ImageError):
    """An image is encoded in a way that this package does not know; another library may."""


class LayoutError(MessageError):
    """A cloud's fields or steps do not describe its bytes as they should; another library may read it all the same."""


class ImplausibleError(MessageError):
    """A frame decodes, but what it holds cannot be what it is taken for (a blind camera, depth that is none).

    Attributes:
        reason: the short kind under which it is counted.
        spoils_map: whether frames before it, which were taken, are wrong too.
    """

    def __init__(self, message: str, *, reason: str, spoils_map: bool = False) -> None:
        """Keep the message, its kind, and whether what came before is wrong."""
        super().__init__(message)
        self.reason, self.spoils_map = reason, spoils_map


class TransformError(OccupancyError):
    """A transform is invalid (NaN, not a rotation) or the tree is (loops, two parents)."""


class LookupTransformError(TransformError):
    """The requested transform is not known: frames not connected."""


class ExtrapolationError(LookupTransformError):
    """The frames are connected, but not at the requested stamp.

    Attributes:
        is_future: whether the stamp lies after the newest known transform, so that waiting may help.
        delay_ns: how long after a sensor's stamp this transform became known lately.
        ending: how its samples end: ``mount`` for what stands still and was not sent as static, ``stopped``, or empty if they go on.
    """

    def __init__(self, message: str, *, is_future: bool, delay_ns: int = 0, ending: str = "") -> None:
        """Keep the message, whether waiting may help, for how long, and how the samples end."""
        super().__init__(message)
        self.is_future, self.delay_ns, self.ending = is_future, delay_ns, ending


class UndecidedFramesError(LookupTransformError):
    """No frame is known in which a map could stand still: what there is moves with the robot, or may still grow."""


class BagError(OccupancyError):
    """A bag cannot be read, or lacks what the task needs.

    Attributes:
        advice: what to do about it, empty if nothing is known.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        """Keep the message and the advice."""
        super().__init__(message)
        self.advice = advice


class CheckpointError(OccupancyError):
    """A model file is missing, corrupt, or does not fit the network it is loaded into."""


class MapFileError(OccupancyError):
    """A saved map is truncated, foreign, of another version, or cannot be written."""


class SimulationError(OccupancyError):
    """The simulator cannot run (missing GL library) or a world cannot be built."""


class TrainingError(OccupancyError):
    """Training cannot go on: no data, a corrupt shard, a loss that is not finite."""


class ClusterError(OccupancyError):
    """A cluster cannot be used: no scheduler answers, or it is gone, or none of its workers can do what is asked."""


class MissingDependencyError(OccupancyError):
    """An optional library is not installed; the message names the command that installs it."""


class StopRequested(Exception):  # noqa: N818
    """Not an error: the process is to end, and what was begun is given up at the next step."""
