# SPDX-License-Identifier: Apache-2.0
"""Carries the data folders of the repository into a pip installation; everything else is in pyproject.toml.

colcon does not use this file: package.xml makes the package an ament_cmake one.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA_FOLDERS = ("config", "demo", "models", "msg", "srv")


class BuildWithData(build_py):
    """Copies the data folders to ``occupancy_nn_ros/share``, where ``occupancy_nn_ros.resources`` looks for them.

    An editable install copies nothing: it finds the folders in the source tree, and a copy would go stale.
    """

    def run(self) -> None:
        """Build the modules, then add the data."""
        super().run()
        if self.editable_mode:
            return
        for source, target in self._data_files():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Paths of all built files, the data among them."""
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else outputs + [str(target) for _, target in self._data_files()]

    def get_source_files(self) -> list[str]:
        """Paths of all files that a source distribution needs for this."""
        return super().get_source_files() + [str(source) for source, _ in self._data_files()]

    def _data_files(self) -> list[tuple[Path, Path]]:
        share = Path(self.build_lib) / "occupancy_nn_ros" / "share"
        files = [path for folder in DATA_FOLDERS for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return [(path, share / path) for path in files]


setup(cmdclass={"build_py": BuildWithData})
