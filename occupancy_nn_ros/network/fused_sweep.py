# SPDX-License-Identifier: Apache-2.0
"""Hands the tables of a plane sweep to its compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from occupancy_nn_ros.network.depth import PlaneSweep, pixel_rays
from occupancy_nn_ros.network.match_tables import SweepTables, parts_of
from occupancy_nn_ros.network.sweep_kernels import MOST_SOURCES, FeatureTables, PatchTables, Sweep, sweep_cells
from occupancy_nn_ros.values import Float32Array


def sweep_and_merge(
    sweep: PlaneSweep, look: SweepTables, sources: Sequence[SweepTables], T_source_ref: Tensor, K: Tensor,
    K_source: Tensor, depths_m: Tensor,
) -> Tensor:  # fmt: skip
    """What ``merge_sources(*sweep(...))`` says, (2 * correlations + 1, D, h, w), for 1 to MOST_SOURCES sources; its arguments."""
    h, w = look.size
    by_cell = depths_m.reshape(len(depths_m), -1).T.contiguous()
    plan = Sweep(
        sweep.projections(T_source_ref, K_source, (h, w)).contiguous().numpy(),
        pixel_rays(K[None], h, w, sweep.stride)[0, :2].contiguous().numpy(),
        _flat(by_cell),
        len(depths_m),
    )
    padded = [*sources, *[sources[0]] * (MOST_SOURCES - len(sources))]
    columns, steps = look.features.shape[2:4]
    features = FeatureTables(
        _flat(look.features), tuple(_flat(source.features) for source in padded), h, w, sweep.groups,
        (None,) * columns, (None,) * steps, (None,) * parts_of(sweep.groups),
    )  # fmt: skip
    patches = PatchTables(
        _flat(look.grey), _flat(look.scale), tuple(_flat(source.grey) for source in padded),
        tuple(_flat(source.scale) for source in padded), *look.scale.shape,
    )  # fmt: skip
    merged = torch.empty(len(depths_m), h, w, 2 * sweep.correlations + 1)
    sweep_cells(0, h * w, plan, features, patches, _flat(merged))
    return merged.permute(3, 0, 1, 2)


def _flat(table: Tensor) -> Float32Array:
    """A contiguous tensor as one row."""
    flat: Float32Array = table.numpy().reshape(-1)
    return flat
