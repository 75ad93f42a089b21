# SPDX-License-Identifier: Apache-2.0
"""Model files: safetensors with configuration, calibration and training record in the header. Loading runs no code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from occupancy_nn_ros.errors import CheckpointError, ConfigError, OccupancyError
from occupancy_nn_ros.network.model import ModelConfig, OccupancyNetwork
from occupancy_nn_ros.resources import resource_path
from occupancy_nn_ros.settings import CheckedSettings, from_mapping, setting

FORMAT = "occupancy_nn_ros model"
VERSION = 1
MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Calibration(CheckedSettings):
    """Affine maps from raw logits to calibrated log-odds (Platt scaling), fitted on worlds not trained on."""

    visible_scale: float = setting(1.0, "Scale where a camera sees the point.", low=0.0, high=100.0)
    visible_offset: float = setting(0.0, "Offset where a camera sees the point.", low=-50.0, high=50.0)
    inferred_scale: float = setting(1.0, "Scale where the point is hidden.", low=0.0, high=100.0)
    inferred_offset: float = setting(0.0, "Offset where the point is hidden.", low=-50.0, high=50.0)
    prior_log_odds: float = setting(0.0, "Log-odds that a voxel is occupied before anyone looks.", low=-20.0, high=20.0)

    def log_odds(self, logit: Tensor, visible: Tensor) -> Tensor:
        """Calibrated log-odds (P,) of raw logits (P,), by whether the point is seen or inferred (P,)."""
        seen = logit * self.visible_scale + self.visible_offset
        inferred = logit * self.inferred_scale + self.inferred_offset
        return torch.where(visible >= 0.5, seen, inferred)


@dataclass(frozen=True)
class Checkpoint:
    """A network and what belongs to it.

    Attributes:
        network: in evaluation mode, on the CPU.
        calibration: from raw logits to log-odds.
        record: how it was trained and what it scored, plain JSON values.
    """

    network: OccupancyNetwork
    calibration: Calibration = field(default_factory=Calibration)
    record: Mapping[str, Any] = field(default_factory=dict)


def set_canvas(checkpoint: Checkpoint, pixels: int | None) -> None:
    """Have the network shown pictures of so many pixels from now on; None: as it was."""
    if pixels is not None:
        checkpoint.network.config = replace(checkpoint.network.config, canvas_pixels=pixels)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a model file, replacing an older one only when the new one is complete.

    Raises:
        CheckpointError: the file cannot be written.
    """
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(dataclasses.asdict(checkpoint.network.config)),
        "calibration": json.dumps(dataclasses.asdict(checkpoint.calibration)),
        "record": json.dumps(checkpoint.record),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.network.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(partial), metadata=header)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write model {path}: {error}") from None


def blend_checkpoints(first: Checkpoint, second: Checkpoint, share: float) -> Checkpoint:
    """The first model with ``share`` of the second one's weights in its own (Wortsman et al. 2022); the record names both.

    Raises:
        CheckpointError: networks of different shapes.
    """
    weights, others = first.network.state_dict(), second.network.state_dict()
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in others.items()}:
        raise CheckpointError("the two models have different networks, expected weights of the same names and shapes")
    network = OccupancyNetwork(first.network.config)
    network.load_state_dict({name: value.lerp(others[name], share) for name, value in weights.items()})
    record = {"first": first.record, "second": second.record, "share_of_second": share}
    return Checkpoint(network.eval(), first.calibration, record)


def find_model(name_or_path: str) -> Path:
    """Path of a model given by file or by its name under ``models/``.

    Raises:
        CheckpointError: there is no such model; names what there is.
    """
    path = Path(name_or_path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise CheckpointError(f"no model file at {path}")
        return path
    try:
        return resource_path(f"models/{name_or_path}.safetensors")
    except OccupancyError:
        known = ", ".join(sorted(path.stem for path in _models())) or "none"
        raise CheckpointError(f"no model named '{name_or_path}'; models that exist: {known}") from None


def _models() -> list[Path]:
    try:
        return list(resource_path("models").glob("*.safetensors"))
    except OccupancyError:
        return []


def read_header(path: Path) -> dict[str, Any]:
    """Configuration, calibration and record of a model file, without reading its weights.

    Raises:
        CheckpointError: missing, corrupt, foreign, or of another version.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read model {path}: {error}") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} says format '{header.get('format')}', expected '{FORMAT}'")
    if header.get("version") != str(VERSION):
        raise CheckpointError(f"{path} is of version {header.get('version')}, this package reads version {VERSION}")
    try:
        values = {key: json.loads(header[key]) for key in ("config", "calibration", "record")}
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged header: {error}") from None
    for key, value in values.items():
        if not isinstance(value, dict):
            raise CheckpointError(f"{path} has a damaged header: {key} is no group of values")
    return values


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a model file; every weight must be there, of the right shape, finite, and none left over.

    Raises:
        CheckpointError: missing, corrupt, foreign, or not fitting its own configuration.
    """
    header = read_header(path)
    try:
        config = from_mapping(ModelConfig, header["config"])
        calibration = from_mapping(Calibration, header["calibration"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    with torch.device("meta"):  # what the file claims takes no memory before its weights have been seen to fit
        expected = OccupancyNetwork(config).state_dict()
    tensors = _read_weights(path)
    _check_weights(path, tensors, expected)
    network = OccupancyNetwork(config)
    network.load_state_dict(tensors, strict=True)
    return Checkpoint(network.eval(), calibration, header["record"])


def grow_checkpoint(path: Path, config: ModelConfig, fresh: Sequence[str]) -> Checkpoint:
    """A network of shape ``config`` that has the weights of a model file but for the parts named in ``fresh``.

    Those parts keep their random weights; all others must be in the file and fit, and the file must hold no more.

    Args:
        path: of the model file.
        config: shape of the new network.
        fresh: names of weights begin with one of these, such as "refiner.", where they are to be new.

    Raises:
        CheckpointError: missing, corrupt or foreign file, weights that do not fit, or a part that does not exist.
    """
    read_header(path)
    network = OccupancyNetwork(config)
    expected = network.state_dict()
    for part in fresh:
        if not any(name.startswith(part) for name in expected):
            raise CheckpointError(f"no part of the network is named '{part}'; parts: {_parts(expected)}")
    kept = {name: tensor for name, tensor in expected.items() if not name.startswith(tuple(fresh))}
    tensors = {name: tensor for name, tensor in _read_weights(path).items() if not name.startswith(tuple(fresh))}
    _check_weights(path, tensors, kept)
    network.load_state_dict(tensors, strict=False)
    return Checkpoint(network.eval())


def _parts(weights: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(sorted({name.split(".")[0] for name in weights}))


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read model {path}: {error}") from None


def _check_weights(path: Path, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path} lacks {len(missing)} weights {missing[:3]} and has {len(extra)} unknown {extra[:3]}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(f"{path}: {name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}")
        if tensor.dtype != expected[name].dtype:
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, expected {expected[name].dtype}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite")
