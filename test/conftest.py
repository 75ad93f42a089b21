# SPDX-License-Identifier: Apache-2.0
"""Settings that all tests share: fixed seeds, one thread for torch, and hypothesis without wall-clock limits."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture(autouse=True, scope="session")
def _quiet_cores() -> None:
    """Small tensors are slower on many threads, and other work may run beside the tests."""
    import torch

    torch.set_num_threads(1)
