# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and that the files which describe the package agree with each other."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from occupancy_nn_ros.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "occupancy_nn_ros"
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))

# Lower layers first; a module imports from layers above its own in this list, and from its own folder. docs/architecture.md.
LAYERS = (
    {
        "errors",
        "values",
        "config",
        "camera_settings",
        "settings",
        "setting_texts",
        "setting_groups",
        "setting_conflicts",
        "setting_doubts",
        "parameter_files",
        "resources",
    },
    {"geometry", "compute"},
    {"network", "mapping", "sync", "alignment", "jobs"},
    {"messages", "visualization"},
    {"bags"},
    {"runtime", "simulation"},
    {"training", "doctor"},
    {"evaluation", "labelling"},
    {"adaptation"},
    {"api"},
    {"ros"},
    {"cli"},
)
FOUNDATION, CORE = LAYERS[0], set().union(*LAYERS[:3])
ROS_MODULES = {"rclpy", "tf2_ros", "cv_bridge", "sensor_msgs_py", "sensor_msgs", "nav_msgs", "std_msgs", "tf2_msgs"}


def part(module: str) -> str:
    """Second part of a module's dotted name: its layer's folder or its own name."""
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    """Position of a module in LAYERS; every one is in exactly one of them."""
    (index,) = [index for index, parts in enumerate(LAYERS) if part(module) in parts]
    return index


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_name(path) for path in SOURCES]


def imported(path: Path) -> set[str]:
    """Modules of this package that a file names in an import, at any depth."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    names |= {node.module if node.module != PACKAGE else f"{PACKAGE}.{node.names[0].name}" for node in froms}
    return {name for name in names if name.startswith(f"{PACKAGE}.")}


def loaded_by(modules: list[str]) -> set[str]:
    """Names in sys.modules of a fresh interpreter that imported ``modules``."""
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_imports_point_down_the_layers(path: Path):
    module = module_name(path)
    if module == PACKAGE:
        assert not imported(path)
        return
    above = {name for name in imported(path) if layer(name) > layer(module)}
    # Folders of one layer know nothing of each other; the foundation's modules may.
    level = [name for name in imported(path) if layer(name) == layer(module) and part(module) not in FOUNDATION]
    assert not above | {name for name in level if part(name) != part(module)}


def test_no_modules_import_each_other_in_a_circle():
    graph = {module_name(path): imported(path) & set(MODULES) for path in SOURCES}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_what_the_architecture_page_points_to_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = re.findall(r"^\| .+\? \| `(\w+/\w+)` `(\w+)` \|$", page, re.M)
    assert len(places) >= 10
    for module, name in places:
        code = (ROOT / PACKAGE / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(rf"^(def |class )?{name}\b", code, re.M), f"{module} has no {name}"


def test_only_the_ros_folder_loads_ros():
    modules = [name for name in MODULES if part(name) != "ros"]
    loaded = loaded_by(modules)
    assert set(modules) <= loaded
    assert not loaded & (ROS_MODULES | {f"{PACKAGE}.msg", f"{PACKAGE}.srv", f"{PACKAGE}.ros"})


def test_the_core_loads_no_bag_library_and_no_message_code():
    loaded = loaded_by([name for name in MODULES if part(name) in CORE])
    assert not {name for name in loaded if name.split(".")[0] == "rosbags"}
    assert not {name for name in loaded if name.startswith((f"{PACKAGE}.messages", f"{PACKAGE}.bags"))}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_versions_agree():
    (package,) = re.findall(r"<version>(.+)</version>", read("package.xml"))
    assert re.findall(r'^version = "(.+?)"', read("pyproject.toml"), re.M) == [package]
    assert re.findall(r"^## (\d\S+)", read("CHANGELOG.md"), re.M)[0] == package
    for name in ("__init__", "api"):
        assert re.findall(r'^__version__ = "(.+)"', read(f"{PACKAGE}/{name}.py"), re.M) == [package]
    # ament reads it from package.xml; a second one in CMake could only disagree.
    assert f"project({PACKAGE})" in read("CMakeLists.txt")


def test_names_and_licences_agree():
    assert re.findall(r"<name>(.+)</name>", read("package.xml")) == [PACKAGE]
    assert re.findall(r'^name = "(.+)"', read("pyproject.toml"), re.M) == [PACKAGE]
    assert ">Apache-2.0</license>" in read("package.xml")
    assert 'license = "Apache-2.0"' in read("pyproject.toml")
    assert "Version 2.0, January 2004" in read("LICENSE")


def test_every_interface_is_generated():
    files = {f"{kind}/{path.name}" for kind in ("msg", "srv") for path in (ROOT / kind).iterdir()}
    assert set(re.findall(r'"((?:msg|srv)/\w+\.\w+)"', read("CMakeLists.txt"))) == files


def test_ros_wheels_are_the_same_in_both_places():
    extra = set(re.findall(r'"(ros-[^"]+?==[\d.]+);', read("pyproject.toml")))
    assert extra
    assert extra <= set(read("scripts/requirements-ros.txt").splitlines())


@pytest.mark.parametrize("name", ["CMakeLists.txt", "package.xml", "pyproject.toml", "setup.py", "config/base.yaml"])
def test_licence_line_comes_first(name: str):
    assert "SPDX-License-Identifier: Apache-2.0" in "".join(read(name).splitlines(keepends=True)[:3])


def test_licence_line_comes_first_in_code():
    files = [path for folder in (PACKAGE, "launch", "test", "scripts") for path in (ROOT / folder).rglob("*.py")]
    marker = "# SPDX-License-Identifier: Apache-2.0"
    assert not [path for path in files if not path.read_text(encoding="utf-8").startswith(marker)]


def test_launch_files_compile():
    files = sorted((ROOT / "launch").glob("*.launch.py"))
    assert files
    for path in files:
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_example_settings_are_the_defaults():
    assert load_config([ROOT / "config" / "base.yaml"]) == Config()


def test_every_settings_file_is_yaml():
    files = [path for path in (ROOT / "config").rglob("*") if path.suffix in (".yaml", ".rviz")]
    assert files
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
