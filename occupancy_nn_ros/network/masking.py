# SPDX-License-Identifier: Apache-2.0
"""What lies under a camera's mask is matched with nothing, and hides what is behind it, as the robot's own body does.

Points behind it are then not visible, so that no evidence comes from there, and the network meets what it knows: a camera before
which something stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.geometry.cameras import Rectifier
from occupancy_nn_ros.network.matching import Matchable, MatchMaps

MARGIN_PX = 8
"""Features this close to a mask show its edge, which stays where it is in every image."""


@dataclass(frozen=True)
class HiddenCells:
    """What a mask leaves of a view.

    Attributes:
        open: for each of :class:`MatchMaps` (1, h, w) float, 1 where the maps show the world alone, 0 elsewhere.
        hidden: (2h, 2w) bool, cells of the fine depth distributions that the mask reaches, and those beside them: points
            between two cells are looked up in both.
    """

    open: MatchMaps
    hidden: Tensor

    @classmethod
    def of(cls, masked: npt.NDArray[np.bool_], device: torch.device) -> HiddenCells:
        """From the masked pixels (H, W) of a pinhole image whose sides are multiples of 8."""
        pixels = torch.from_numpy(masked.astype(np.float32))[None, None]
        near = functional.max_pool2d(pixels, 2 * MARGIN_PX + 1, 1, MARGIN_PX)
        shown = MatchMaps(*((1 - functional.max_pool2d(near, stride)[0]).to(device) for stride in (8, 4, 2)))
        cells = functional.max_pool2d(functional.max_pool2d(pixels, 4), 3, 1, 1)
        return cls(shown, (cells[0, 0] > 0).to(device))

    def without(self, match: Matchable) -> Matchable:
        """What a view is matched by, with nothing where the mask may have had a part in it."""
        return match.shown(*self.open)

    def hide(self, nearer: Tensor) -> Tensor:
        """Cumulative depth distributions (D + 1, 2h, 2w) in which the surface is certain to be nearer where the mask is."""
        return nearer.masked_fill(self.hidden, 1.0)


@lru_cache(maxsize=64)
def hidden_cells(rectifier: Rectifier, device: torch.device) -> HiddenCells | None:
    """What a camera's mask leaves of its views, None if it has no mask."""
    return None if rectifier.masked is None else HiddenCells.of(rectifier.masked, device)


def without_masked(match: Sequence[Matchable], hidden: Sequence[HiddenCells | None]) -> list[Matchable]:
    """What V views are matched by, without what their masks had a part in."""
    return [view if mask is None else mask.without(view) for view, mask in zip(match, hidden, strict=True)]


def hide_masked(nearer: Tensor, hidden: Sequence[HiddenCells | None]) -> Tensor:
    """Cumulative depth distributions (V, D + 1, h, w) of V views in which their masks hide what lies behind."""
    if all(mask is None for mask in hidden):
        return nearer
    return torch.stack([view if mask is None else mask.hide(view) for view, mask in zip(nearer, hidden, strict=True)])
