# SPDX-License-Identifier: Apache-2.0
"""Time: matching frames of several cameras, poses at any stamp, keyframe choice."""
