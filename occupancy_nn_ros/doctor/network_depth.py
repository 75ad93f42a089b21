# SPDX-License-Identifier: Apache-2.0
"""The depth that the network sees in the first keyframes, by which depth cameras beside the colour cameras are judged."""

from __future__ import annotations

from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import CheckpointError, ConfigError
from occupancy_nn_ros.runtime.predictor import Predictor
from occupancy_nn_ros.values import Keyframe, LatticeWindow, PosedDepth

MOST_KEYFRAMES = 10
"""Enough for a verdict, and seconds on a CPU."""

ONE_VOXEL = LatticeWindow(0.2, (0, 0, 0), (1, 1, 1))
"""Only the depth is wanted, not the voxels."""


class NetworkDepth:
    """Runs the network on keyframes with a depth camera that is to be judged."""

    def __init__(self, config: Config) -> None:
        """Nothing is loaded before it is needed."""
        self._config, self._left = config, MOST_KEYFRAMES if config.source == "network" else 0
        self._predictor: Predictor | None = None

    def see(self, keyframe: Keyframe) -> tuple[PosedDepth, ...]:
        """Depth of a keyframe's images; none where it has none, or after enough keyframes."""
        if not self._left or not keyframe.images:
            return ()
        self._left -= 1
        try:
            self._predictor = self._predictor or Predictor.load(self._config.model, self._config.network)
        except (CheckpointError, ConfigError):  # which is a finding of its own
            self._left = 0
            return ()
        return self._predictor.predict(keyframe, ONE_VOXEL).depths
