# SPDX-License-Identifier: Apache-2.0
"""Which files make up a recording: a single file, or a folder with or without its metadata.yaml."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import yaml
import zstandard

from occupancy_nn_ros.errors import BagError

SUFFIXES = (".mcap", ".db3")
PACKED = (".zstd", ".zst")
METADATA = "metadata.yaml"
LFS_POINTER = b"version https://git-lfs."
PART = re.compile(r"_\d+$")
"""What ``ros2 bag record`` appends to the name of each part of a recording."""

INFORMATION = "rosbag2_bagfile_information"
COPY_BYTES = 1 << 20


def files_of(path: Path) -> tuple[list[Path], list[str]]:
    """The files of a recording in order, and what is wrong with its folder, worded for people.

    The metadata only names the files: all else that is needed is in them.

    Raises:
        BagError: nothing there, or files that do not belong together and no metadata that says otherwise.
    """
    if not path.exists():
        raise BagError(f"no bag at {path}", advice="check the path")
    if not path.is_dir():
        return files_of(path.parent) if path.name == METADATA else ([path], [])
    there = sorted((file for file in path.iterdir() if _is_bag_file(file)), key=_order)
    named, warnings = _named_files(path / METADATA)
    if named:
        missing = [name for name in named if not (path / name).is_file()]
        warnings += [f"{name} is named in metadata.yaml and is not there" for name in missing]
        listed = [path / name for name in named if name not in missing and _is_bag_file(path / name)]
        if listed:
            return listed, warnings
    if not there:
        has = "" if (path / METADATA).exists() else "no metadata.yaml and "
        raise BagError(f"{path} has {has}0 bag files, expected .mcap or .db3", advice="check the path")
    if len({_series(file) for file in there}) > 1:
        raise BagError(
            f"{path} has no usable metadata.yaml and {len(there)} bag files of several recordings, expected one",
            advice="name one of its files",
        )
    return there, warnings


def unpacked(file: Path, stack: ExitStack) -> Path:
    """The file itself, or a copy without its compression that lasts as long as ``stack``.

    Raises:
        BagError: it does not decompress, or is only a pointer to a file elsewhere.
    """
    with file.open("rb") as start:
        if start.read(len(LFS_POINTER)) == LFS_POINTER:
            raise BagError(f"{file} is a pointer of Git LFS, not the file itself", advice="`git lfs pull` fetches it")
    if file.suffix not in PACKED:
        return file
    target = Path(stack.enter_context(TemporaryDirectory())) / file.stem
    try:
        with file.open("rb") as packed, target.open("wb") as plain:
            zstandard.ZstdDecompressor().copy_stream(packed, plain, read_size=COPY_BYTES, write_size=COPY_BYTES)
    except (OSError, zstandard.ZstdError) as error:
        raise BagError(f"cannot decompress {file}: {error}", advice="try `zstd -d` on it") from None
    return target


def _named_files(metadata: Path) -> tuple[list[str], list[str]]:
    """File names in the metadata, without their folders; and what is wrong with it."""
    if not metadata.is_file():
        return [], []
    try:
        paths = yaml.safe_load(metadata.read_text(encoding="utf-8"))[INFORMATION]["relative_file_paths"]
        names = [PurePath(path).name for path in paths]
    except Exception:  # damage may make anything of it, and YAML's reader raises nearly anything
        return [], ["metadata.yaml is damaged: read without it, `ros2 bag reindex` makes it anew"]
    return names, []


def _is_bag_file(file: Path) -> bool:
    plain = file.with_suffix("") if file.suffix in PACKED else file
    return plain.suffix in SUFFIXES and file.is_file() and not file.name.startswith(".")


def _series(file: Path) -> tuple[str, str]:
    plain = file.with_suffix("") if file.suffix in PACKED else file
    return PART.sub("", plain.stem), plain.suffix


def _order(file: Path) -> tuple[str, int]:
    plain = file.with_suffix("") if file.suffix in PACKED else file
    number = PART.search(plain.stem)
    return _series(file)[0], int(number.group()[1:]) if number else -1
