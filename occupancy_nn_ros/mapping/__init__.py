# SPDX-License-Identifier: Apache-2.0
"""The rolling voxel map and everything that reads it."""
