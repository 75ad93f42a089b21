# SPDX-License-Identifier: Apache-2.0
"""Learned baselines: what each is shown in training, how it is run, and its model files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines_bev import BevNetwork
from safetensors.torch import load_file

from occupancy_nn_ros.config import NetworkConfig
from occupancy_nn_ros.errors import CheckpointError, ConfigError
from occupancy_nn_ros.network.checkpoint import Calibration, Checkpoint, find_model, load_checkpoint, read_header
from occupancy_nn_ros.network.model import ModelConfig
from occupancy_nn_ros.runtime.predictor import Place, Predictor
from occupancy_nn_ros.settings import from_mapping
from occupancy_nn_ros.training.dataset import Sample, SampleSource
from occupancy_nn_ros.training.loop import TrainConfig, initial_model
from occupancy_nn_ros.values import Keyframe, LatticeWindow, Prediction

KINDS = ("one_view", "bev")


class WithoutPast:
    """Samples whose past keyframes are left out, and all current views but one if ``one_view``."""

    def __init__(self, source: SampleSource, *, one_view: bool) -> None:
        self.source, self.one_view = source, one_view

    def sample(self, step: int) -> Sample:
        """The sample of one step; the view is drawn by the step alone."""
        sample = self.source.sample(step)
        keep = list(range(sample.views))
        if self.one_view:
            keep = [int(np.random.default_rng([self.source.seed, step, 1]).integers(sample.views))]
        return replace(
            sample,
            images=sample.images[keep],
            K=sample.K[keep],
            T_world_cam=sample.T_world_cam[keep],
            views=len(keep),
            depth_m=sample.depth_m[keep],
        )


class OneViewPredictor(Predictor):
    """Shows the network one image at a time; of the answers to a voxel the one of the view that sees it best holds."""

    def place_and_predict(
        self, keyframe: Keyframe, window: LatticeWindow, place: Place | None
    ) -> tuple[Keyframe, Prediction]:
        """As :meth:`Predictor.place_and_predict`."""
        keyframe = keyframe if place is None else place(keyframe)
        answers = []
        for image in keyframe.images:
            self.reset()
            answers.append(super().place_and_predict(replace(keyframe, images=(image,)), window, None)[1])
        return keyframe, best_seen(answers)


def best_seen(answers: list[Prediction]) -> Prediction:
    """One prediction from several of one window: at each voxel the answer whose visibility is highest.

    Raises:
        ValueError: no answers, or answers without visibility.
    """
    visibilities = [answer.visible for answer in answers if answer.visible is not None]
    if not answers or len(visibilities) != len(answers):
        raise ValueError(
            f"{len(answers)} answers with {len(visibilities)} visibilities, expected as many, at least one"
        )
    visible, best = torch.stack(visibilities).max(dim=0)

    def pick(tensors: list[Any]) -> torch.Tensor:
        stacked = torch.stack(tensors)  # (answers, ..., X, Y, Z)
        index = best.expand(stacked.shape[1:])[None]
        return stacked.gather(0, index)[0]

    return Prediction(
        answers[0].window,
        pick([a.logit for a in answers]),
        pick([a.weight for a in answers]),
        pick([a.class_logits for a in answers]),
        visible,
        tuple(depth for answer in answers for depth in answer.depths),
    )


def begin_baseline(kind: str, encoder: str | None, config: TrainConfig) -> Checkpoint:
    """A new network of a baseline, or the one that the run starts from.

    Args:
        kind: one of ``KINDS``.
        encoder: for ``bev``, the shipped model whose image encoder a new network begins with; None: random weights.
        config: of the run.

    Raises:
        ConfigError: an encoder, but the network is no new ``bev``.
    """
    if encoder is not None and (kind != "bev" or config.initial):
        raise ConfigError(
            f"encoder is {encoder} for {kind} with initial '{config.initial}', expected a new bev, which has no initial"
        )
    if kind == "one_view":
        return initial_model(config)
    if config.initial:
        return load_baseline(kind, Path(config.initial))
    network = BevNetwork(config.model)
    if encoder is not None:
        network.encoder.load_state_dict(load_checkpoint(find_model(encoder)).network.encoder.state_dict())
    return Checkpoint(network)


def load_baseline(kind: str, path: Path) -> Checkpoint:
    """Read a model file of a baseline.

    Raises:
        CheckpointError: missing, corrupt, or of another network.
    """
    if kind == "one_view":
        return load_checkpoint(path)
    header = read_header(path)
    network = BevNetwork(from_mapping(ModelConfig, header["config"]))
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise CheckpointError(f"{path} holds no bird's-eye-view network: {error}") from None
    return Checkpoint(network.eval(), from_mapping(Calibration, header["calibration"]), header["record"])


def make_predictor(kind: str, checkpoint: Checkpoint) -> Predictor:
    """What runs a baseline on keyframes; no past is kept."""
    return (OneViewPredictor if kind == "one_view" else Predictor)(checkpoint, NetworkConfig(past_keyframes=0))
