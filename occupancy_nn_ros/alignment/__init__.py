# SPDX-License-Identifier: Apache-2.0
"""Poses and calibration as measurements: what the images themselves say about where the cameras stood."""
