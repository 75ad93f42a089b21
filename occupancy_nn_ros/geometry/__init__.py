# SPDX-License-Identifier: Apache-2.0
"""Pure geometry: poses, cameras, the voxel lattice and rays."""
