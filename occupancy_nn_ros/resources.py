# SPDX-License-Identifier: Apache-2.0
"""Where the package's own data files are: the source tree, a pip installation, or a colcon share folder."""

from pathlib import Path

from occupancy_nn_ros.errors import OccupancyError


def resource_path(name: str) -> Path:
    """Path of a data file shipped with the package, such as ``models/nano.safetensors`` or ``msg/VoxelGrid.msg``.

    Raises:
        OccupancyError: no place holds it; names the places looked at.
    """
    package = Path(__file__).resolve().parent
    places = [package.parent, package / "share"]
    places += [parent / "share" / "occupancy_nn_ros" for parent in package.parents]
    for place in places:
        if (place / name).exists():
            return place / name
    raise OccupancyError(f"'{name}' is not in any of: {', '.join(map(str, places))}")
