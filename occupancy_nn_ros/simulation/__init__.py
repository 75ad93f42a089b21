# SPDX-License-Identifier: Apache-2.0
"""Simulated worlds, camera rigs and drives with exact ground truth."""
