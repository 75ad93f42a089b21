# SPDX-License-Identifier: Apache-2.0
"""Live 3D occupancy maps from ordinary cameras.

Only the package path is set here: colcon installs the generated ``msg`` and ``srv`` modules under this same package name,
possibly in another folder, and both halves must be importable (rosidl_python issue 141). Keep this file free of imports
that anything needs at run time: some distributions install an empty one in its place. Programs import from
:mod:`occupancy_nn_ros.api`, which holds the version, too.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
