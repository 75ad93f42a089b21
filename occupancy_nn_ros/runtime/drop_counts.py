# SPDX-License-Identifier: Apache-2.0
"""What was not used and why: counted for figures, worded for people."""

from __future__ import annotations

from collections import Counter

from occupancy_nn_ros.errors import (
    CalibrationError,
    ExtrapolationError,
    LookupTransformError,
    MessageError,
    OccupancyError,
    OversizedError,
    TransformError,
    UndecidedFramesError,
)

KINDS: tuple[tuple[type[OccupancyError], str], ...] = (
    (ExtrapolationError, "no transform at its stamp"),
    (UndecidedFramesError, "no frame that stands still"),
    (LookupTransformError, "no transform"),
    (TransformError, "invalid transform"),
    (CalibrationError, "no usable camera_info"),
    (OversizedError, "message too large"),
    (MessageError, "message does not decode"),
)


class DropCounts:
    """Counts by reason, and the latest instance of each kind of trouble.

    Attributes:
        counts: frames, sets and messages that were not used, by reason.
        problems: the latest message of each kind of trouble.
    """

    def __init__(self) -> None:
        """Nothing was dropped yet."""
        self.counts: Counter[str] = Counter()
        self.problems: dict[str, str] = {}

    def add(self, reason: str, text: str, count: int = 1) -> None:
        """Count something that was dropped, and say why."""
        self.counts[reason] += count
        self.problems[reason] = text


def kind_of(error: Exception) -> str:
    """A short reason to count an error under."""
    return next(text for kind, text in KINDS if isinstance(error, kind))
