# SPDX-License-Identifier: Apache-2.0
"""Message bytes to map to message bytes, keyframe by keyframe."""
