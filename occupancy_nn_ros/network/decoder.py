# SPDX-License-Identifier: Apache-2.0
"""The continuous field: evidence and context at any 3D point become an occupancy logit and class logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

REFERENCE_EDGE_M = 0.2
"""Cube edge at which the edge input is zero."""


class Decoder(nn.Module):
    """A small perceptron on top of a learned mix of the raw geometric evidence."""

    def __init__(self, statistics: int, context: int, width: int, classes: int) -> None:
        super().__init__()
        self.evidence = nn.Linear(statistics, 1)
        self.layers = nn.Sequential(
            nn.Linear(statistics + context + 3, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, 1 + classes),
        )

    @torch.no_grad()
    def shift_occupancy(self, by: float) -> None:
        """Make all occupancy logits larger by so much from now on."""
        self.evidence.bias.add_(by)

    def forward(self, statistics: Tensor, context: Tensor, offset: Tensor, edge_m: Tensor) -> Tensor:
        """Logits at points.

        Args:
            statistics: (P, S) evidence of the views.
            context: (P, C) samples of the volume.
            offset: (P, 3) position relative to the robot base, metres.
            edge_m: (P,) edge of the cube that is asked about: "does it hold solid matter?".

        Returns:
            (P, 1 + classes): occupancy logit, then class logits.
        """
        place = torch.stack([offset[:, 2], offset[:, :2].norm(dim=1) / 8, torch.log2(edge_m / REFERENCE_EDGE_M)], dim=1)
        out: Tensor = self.layers(torch.cat([statistics, context, place], dim=1))
        occupancy = out[:, :1] + self.evidence(statistics)
        return torch.cat([occupancy, out[:, 1:]], dim=1)
