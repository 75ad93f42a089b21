# SPDX-License-Identifier: Apache-2.0
"""What views are matched by, and their matching with the sources of each, in the way that is fastest on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from occupancy_nn_ros.network.dense_matching import match_all
from occupancy_nn_ros.network.depth import Appearance, PlaneSweep, merge_sources, relative_poses
from occupancy_nn_ros.network.fused_sweep import sweep_and_merge
from occupancy_nn_ros.network.match_tables import MatchTables, SweepTables
from occupancy_nn_ros.network.views import Views


class FeatureMaps(NamedTuple):
    """What is seen in V views: features (V, C, h, w) at stride 8 and details (V, E, 2h, 2w) at stride 4."""

    features: Tensor
    details: Tensor


class MatchMaps(NamedTuple):
    """What one view is matched by.

    Attributes:
        features: (C, h, w) at stride 8, each group of channels of unit length.
        details: (E, 2h, 2w) at stride 4, likewise.
        patches: (N, 4h, 4w) of :func:`~occupancy_nn_ros.network.patches.image_patches`.
    """

    features: Tensor
    details: Tensor
    patches: Tensor

    @property
    def coarse(self) -> Appearance:
        """For the first sweep."""
        return Appearance(self.features, self.patches)

    @property
    def fine(self) -> Appearance:
        """For the second."""
        return Appearance(self.details, self.patches)

    def shown(self, features: Tensor, details: Tensor, patches: Tensor) -> MatchMaps:
        """Without what is 0 in (1, h, w), (1, 2h, 2w) and (1, 4h, 4w)."""
        return MatchMaps(self.features * features, self.details * details, self.patches * patches)


Matchable = MatchMaps | MatchTables
"""What one view is matched by: maps for gradients, other devices and graphs, tables for the kernel."""

Look = Appearance | SweepTables
"""The same in one sweep."""

Match = Callable[[Tensor], Tensor]
"""Depths in metres to what the sources of each view say there, (R, 2 * correlations + 1, D, h, w)."""


def of_unit_length(features: Tensor, groups: int) -> Tensor:
    """(V, C, h, w) with each group of channels of unit length."""
    views, channels, h, w = features.shape
    return functional.normalize(features.view(views, groups, -1, h, w), dim=2).view(views, channels, h, w)


def match_sources(
    sweep: PlaneSweep, looks: Sequence[Look], views: Views, sources: Tensor, depths_m: Tensor, first: int = 0
) -> Tensor:
    """What the sources of R views say.

    Args:
        sweep: how they are compared.
        looks: of all views.
        views: all of them.
        sources: (R, S) view indices, -1 where there is none.
        depths_m: (D,) for all pixels, or (R, D, h, w).
        first: index of the first of the R views, which follow each other.

    Returns:
        (R, 2 * correlations + 1, D, h, w) of :func:`~occupancy_nn_ros.network.depth.merge_sources`; zeros for a view
        without any source.
    """
    if depths_m.device.type != "cpu" and sources.shape[1]:
        return match_all(sweep, [look for look in looks if isinstance(look, Appearance)], views, sources, depths_m)
    merged = []
    for number, row in enumerate(sources):
        chosen = row[row >= 0]
        view = first + number
        look, depths = looks[view], depths_m if depths_m.ndim == 1 else depths_m[number]
        if len(chosen) == 0:
            merged.append(look.features.new_zeros(2 * sweep.correlations + 1, len(depths), *look.size))
            continue
        T_source_ref = relative_poses(views, torch.full_like(chosen, view), chosen)
        others, where = chosen.tolist(), (T_source_ref, views.K[view], views.K[chosen], depths)
        if isinstance(look, SweepTables):
            tables = [table for n in others if isinstance(table := looks[n], SweepTables)]
            merged.append(sweep_and_merge(sweep, look, tables, *where))
        else:
            maps = [maps for n in others if isinstance(maps := looks[n], Appearance)]
            merged.append(merge_sources(*sweep(look, maps, *where)))
    return merged[0][None] if len(merged) == 1 else torch.stack(merged)
