# SPDX-License-Identifier: Apache-2.0
"""Hands the tensors of a plane sweep to its compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from occupancy_nn_ros.compute.compiled import use_kernels
from occupancy_nn_ros.network.depth import Appearance, PlaneSweep, pixel_rays
from occupancy_nn_ros.network.patches import patches_at
from occupancy_nn_ros.network.sweep_kernels import MOST_SOURCES, Maps, Sweep, sweep_cells
from occupancy_nn_ros.values import Float32Array


def can_fuse(look: Appearance, sources: int) -> bool:
    """Whether the kernel takes a sweep: on a CPU, in float32, without gradients, of so many sources."""
    plain = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return (
        plain and sources <= MOST_SOURCES and look.features.dtype == torch.float32 and use_kernels(look.features.device)
    )


def sweep_and_merge(
    sweep: PlaneSweep, look: Appearance, sources: Sequence[Appearance], T_source_ref: Tensor, K: Tensor, K_source: Tensor,
    depths_m: Tensor,
) -> Tensor:  # fmt: skip
    """What ``merge_sources(*sweep(...))`` says, (2 * correlations + 1, D, h, w), for at least one source; its arguments."""
    h, w = look.features.shape[-2:]
    projections = sweep.projections(T_source_ref, K_source, (h, w))
    plan = Sweep(
        projections.contiguous().numpy(),
        pixel_rays(K[None], h, w, sweep.stride)[0, :2].contiguous().numpy(),
        depths_m.reshape(len(depths_m), -1).contiguous().numpy(),
    )
    padded = [*sources, *[sources[0]] * (MOST_SOURCES - len(sources))]
    features = _maps(look.features, [source.features for source in padded], sweep.groups)
    patches = _maps(patches_at(look.patches, h, w), [source.patches for source in padded], 1)
    merged = torch.empty(len(depths_m), h, w, 2 * sweep.correlations + 1)
    sweep_cells(0, h * w, plan, features, patches, merged.numpy().reshape(-1))
    return merged.permute(3, 0, 1, 2)


def _maps(ours: Tensor, theirs: Sequence[Tensor], groups: int) -> Maps:
    height, width = theirs[0].shape[-2:]
    tables = tuple(_by_cell(source) for source in theirs)
    return Maps(_by_cell(ours), tables, height, width, groups, (None,) * (ours.shape[0] // groups))


def _by_cell(maps: Tensor) -> Float32Array:
    """(C, h, w) with the channels of a cell beside each other, flat; not copied where they lie so already."""
    table: Float32Array = maps.permute(1, 2, 0).contiguous().numpy().reshape(-1)
    return table
