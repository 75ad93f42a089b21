# SPDX-License-Identifier: Apache-2.0
"""Builds the interface packages that ROS from PyPI lacks into the environment that runs this file.

These are ``tf2_msgs`` (one message, kept beside this file) and the ``msg`` and ``srv`` of this repository. Nothing has
to be sourced afterwards. The Python module of this repository is not built: it is installed editable, and finds its
interfaces through the ``__path__`` that its root ``__init__.py`` extends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "occupancy_nn_ros"
PREFIX = Path(sys.prefix)
WORK = PREFIX / "ros-build"

# The wheels' exported CMake targets name the include folders of the machine that built them, which CMake refuses.
BUILDER_FOLDERS = (
    (re.compile(r"/opt/[^;\"\s]*/include/python3\.\d+"), sysconfig.get_paths()["include"]),
    (re.compile(r"/opt/[^;\"\s]*/numpy/_?core/include"), np.get_include()),
)


def main() -> int:
    """Fix the wheels, build, and check that the result can be imported."""
    point_wheels_at_this_python()
    remove_previous_interfaces()
    log = WORK / "build.log"
    if not build(log):
        sys.stderr.write(f"the interfaces did not build, see {log}; its end:\n")
        sys.stderr.write("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-25:]))
        return 1
    leave_root_package_to_the_source()
    return subprocess.run([sys.executable, "-c", IMPORT_CHECK], cwd=PREFIX, check=False).returncode


def point_wheels_at_this_python() -> None:
    """Put this environment's include folders into the wheels' exported CMake targets."""
    for path in PREFIX.glob("share/*/cmake/*.cmake"):
        text = fixed = path.read_text(encoding="utf-8")
        for pattern, folder in BUILDER_FOLDERS:
            fixed = pattern.sub(lambda _, folder=folder: str(folder), fixed)
        if fixed != text:
            path.write_text(fixed, encoding="utf-8")


def remove_previous_interfaces() -> None:
    """Forget what an earlier run installed, so that a message that is gone is gone here too."""
    for folder in (purelib() / PACKAGE, PREFIX / "share" / PACKAGE, WORK):
        shutil.rmtree(folder, ignore_errors=True)


def build(log: Path) -> bool:
    """Run colcon on both packages; all output goes to ``log``."""
    tf2_msgs = WORK / "src" / "tf2_msgs"
    shutil.copytree(Path(__file__).parent / "tf2_msgs", tf2_msgs, ignore=shutil.ignore_patterns("COLCON_IGNORE"))
    command = [
        str(PREFIX / "bin" / "colcon"), "--log-base", str(WORK / "log"), "build",
        "--paths", str(tf2_msgs), str(ROOT),
        "--build-base", str(WORK / "build"), "--merge-install", "--install-base", str(PREFIX),
        "--cmake-args", "-G", "Ninja", "--no-warn-unused-cli", "-DINTERFACES_ONLY=ON", "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={sys.executable}",
    ]  # fmt: skip
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(command, env=build_environment(), stdout=stream, stderr=stream, check=False)
    return done.returncode == 0


def build_environment() -> dict[str, str]:
    """The caller's environment, with this prefix as the only ROS installation and its cmake and ninja first."""
    prefix = str(PREFIX)
    path = os.pathsep.join([str(PREFIX / "bin"), os.environ.get("PATH", os.defpath)])
    return os.environ | {"AMENT_PREFIX_PATH": prefix, "CMAKE_PREFIX_PATH": prefix, "PATH": path}


def leave_root_package_to_the_source() -> None:
    """Remove the generated empty root package and its metadata, which would hide the editable install's."""
    (purelib() / PACKAGE / "__init__.py").unlink(missing_ok=True)
    for folder in purelib().glob(f"{PACKAGE}-*.egg-info"):
        shutil.rmtree(folder)


def purelib() -> Path:
    """Where this environment's Python packages lie."""
    return Path(sysconfig.get_paths()["purelib"])


IMPORT_CHECK = f"""
import rclpy
import {PACKAGE}.config
from {PACKAGE}.msg import MapStatus, VoxelGrid
from {PACKAGE}.srv import ClearBox, LoadMap, QueryOccupancy, SaveMap
from tf2_msgs.msg import TFMessage
"""

if __name__ == "__main__":
    sys.exit(main())
