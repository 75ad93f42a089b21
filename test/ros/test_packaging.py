# SPDX-License-Identifier: Apache-2.0
"""The package as a ROS user builds it: one ``colcon build`` of a copy, then imports from what it installed."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "occupancy_nn_ros"
DATA = tuple(name for name in ("config", "demo", "launch", "models") if (ROOT / name).is_dir())
FOLDERS = (*DATA, "msg", "srv", "scripts", PACKAGE)

pytest.importorskip("rclpy", reason="no ROS")


def prefixes() -> list[Path]:
    """ROS installations to build against: the sourced ones, or the wheels in this environment."""
    sourced = [Path(part) for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    return sourced or [Path(sys.prefix)]


def search_path() -> str:
    return os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])


def missing_tool() -> str:
    """What the build lacks here, in words; empty where it can run."""
    for tool in ("colcon", "cmake", "c++"):
        if not shutil.which(tool, path=search_path()):
            return f"no {tool}"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "no Python headers"
    if not any((prefix / "share" / "rosidl_default_generators").is_dir() for prefix in prefixes()):
        return "no rosidl generators"
    return ""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install folder of a colcon build of the whole package."""
    if reason := missing_tool():
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("workspace")
    copy_package(base / "src" / PACKAGE)
    found = os.pathsep.join(map(str, prefixes()))
    environment = os.environ | {"AMENT_PREFIX_PATH": found, "CMAKE_PREFIX_PATH": found, "PATH": search_path()}
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=search_path()) else []
    command = [
        "colcon",
        "build",
        "--merge-install",
        "--cmake-args",
        *generator,
        "-DBUILD_TESTING=OFF",
        "-DCOMPILE_KERNELS=OFF",
    ]
    command.append(f"-DPython3_EXECUTABLE={sys.executable}")
    tool = shutil.which(command[0], path=search_path())
    done = subprocess.run([str(tool), *command[1:]], cwd=base, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return base / "install"


def copy_package(target: Path) -> None:
    target.mkdir(parents=True)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("package.xml", "CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy2(ROOT / name, target / name)


def module_folder(prefix: Path) -> Path:
    (found,) = prefix.glob(f"lib/python*/*-packages/{PACKAGE}")
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestInstallTree:
    def test_holds_every_interface(self, prefix: Path):
        module = module_folder(prefix)
        for kind in ("msg", "srv"):
            sources = sorted((ROOT / kind).glob(f"*.{kind}"))
            assert sources
            for source in sources:
                snake = re.sub(r"(?<!^)(?=[A-Z])", "_", source.stem).lower()
                assert (module / kind / f"_{snake}.py").is_file()
                assert (prefix / "share" / PACKAGE / kind / source.name).is_file()

    def test_holds_the_whole_python_module(self, prefix: Path):
        module, source = module_folder(prefix), ROOT / PACKAGE
        expected = {path.relative_to(source) for path in source.rglob("*.py")}
        assert expected <= {path.relative_to(module) for path in module.rglob("*.py")}
        assert not list(module.rglob("test_*.py"))

    def test_holds_the_node_and_the_command_for_ros2_run(self, prefix: Path):
        for name in ("occupancy_node", "occupancy-nn"):
            assert os.access(prefix / "lib" / PACKAGE / name, os.X_OK)

    def test_holds_launch_files_settings_models_and_the_demo(self, prefix: Path):
        share = prefix / "share" / PACKAGE
        for folder in DATA:
            sources = [path for path in (ROOT / folder).rglob("*.*") if "__pycache__" not in path.parts]
            assert sources
            assert not [path for path in sources if not (share / path.relative_to(ROOT)).exists()]

    def test_interfaces_and_module_import_in_one_process(self, prefix: Path, tmp_path: Path):
        """The source folder is not on the path, so that both can only come from the install tree."""
        code = f"""
import sys
sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]
import {PACKAGE}.config, {PACKAGE}.resources
from {PACKAGE}.msg import MapStatus, VoxelGrid
from {PACKAGE}.srv import ClearBox, LoadMap, QueryOccupancy, SaveMap
print({PACKAGE}.config.__file__)
print(sys.modules[VoxelGrid.__module__].__file__)
print({PACKAGE}.resources.resource_path("msg/VoxelGrid.msg"))
print({PACKAGE}.resources.resource_path("config/base.yaml"))
VoxelGrid.__class__.__import_type_support__()
assert VoxelGrid.__class__._TYPE_SUPPORT is not None
"""
        installed = module_folder(prefix).parent
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "LD_LIBRARY_PATH": os.pathsep.join([str(prefix / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]),
        }
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        places = [Path(line) for line in done.stdout.split("\n") if line]
        assert len(places) == 4
        assert all(prefix in path.parents for path in places), places
