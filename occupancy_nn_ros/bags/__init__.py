# SPDX-License-Identifier: Apache-2.0
"""Rosbag2 files: reading, writing, finding the cameras in them, playing them."""
