# SPDX-License-Identifier: Apache-2.0
"""What of a recording was not used for labels, and the labels that came of the rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.labelling.frames import ShardWriter
from occupancy_nn_ros.labelling.plan import BagLabels
from occupancy_nn_ros.runtime.intake import Intake


class LeftOut:
    """Counts what is not used.

    Attributes:
        dropped: how often, by reason.
        problem: the latest one, worded for people.
    """

    def __init__(self) -> None:
        """Nothing was left out yet."""
        self.dropped: Counter[str] = Counter()
        self.problem = "nothing was recorded in this part"

    def drop(self, reason: str, text: str) -> None:
        """Count one thing more."""
        self.dropped[reason] += 1
        self.problem = text

    def note(self, intake: Intake) -> None:
        """Count what an intake left out, once it is done."""
        self.dropped += intake.dropped
        self.problem = next(reversed(intake.problems.values()), "") or self.problem
        missing = intake.waiting_for()
        self.problem = missing[0] if missing else self.problem

    def labels(self, writer: ShardWriter, path: Path) -> BagLabels:
        """Finish the shards of a recording.

        Raises:
            BagError: no two keyframes could be used; says why.
        """
        self.expect_two(writer.keyframes, path)
        shards = writer.finish()
        return BagLabels(shards, writer.keyframes, writer.free, writer.occupied, dict(sorted(self.dropped.items())))

    def expect_two(self, keyframes: int, path: Path) -> None:
        """Look at how many keyframes there are.

        Raises:
            BagError: fewer than two; says why.
        """
        if keyframes < 2:
            raise BagError(f"{keyframes} keyframes could be made of {path}, expected at least 2; {self.problem}")
