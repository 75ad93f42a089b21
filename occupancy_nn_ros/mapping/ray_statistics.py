# SPDX-License-Identifier: Apache-2.0
"""What became of the rays of one scan."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

Counts = tuple[int, int, int, int, int]


class RayStatistics:
    """Counts of one scan. Those of a map on a GPU stay there until they are asked for: who asks waits for them."""

    def __init__(self, counts: Counts | Tensor) -> None:
        """Take counts in the order of the properties, (5,) int64 if they are a tensor."""
        self._counts = counts

    @cached_property
    def counts(self) -> Counts:
        """All of them, in the order of the properties."""
        if isinstance(self._counts, tuple):
            return self._counts
        used, not_finite, too_short, hits, passes = (int(count) for count in self._counts.tolist())
        return used, not_finite, too_short, hits, passes

    @property
    def used(self) -> int:
        """Rays with a finite end and a length."""
        return self.counts[0]

    @property
    def not_finite(self) -> int:
        """Rays left out because of NaN or infinity."""
        return self.counts[1]

    @property
    def too_short(self) -> int:
        """Rays left out because they have no length."""
        return self.counts[2]

    @property
    def hits(self) -> int:
        """Voxels that rays end in."""
        return self.counts[3]

    @property
    def passes(self) -> int:
        """Voxels that rays pass and none ends in."""
        return self.counts[4]

    def __eq__(self, other: object) -> bool:
        """Whether all counts are equal."""
        return isinstance(other, RayStatistics) and self.counts == other.counts

    def __hash__(self) -> int:
        """That of the counts."""
        return hash(self.counts)

    def __repr__(self) -> str:
        """The counts by name."""
        names = ("used", "not_finite", "too_short", "hits", "passes")
        return f"RayStatistics({', '.join(f'{name}={count}' for name, count in zip(names, self.counts, strict=True))})"
