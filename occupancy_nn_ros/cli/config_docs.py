# SPDX-License-Identifier: Apache-2.0
"""``docs/parameters.md`` from the settings themselves: ``python -m occupancy_nn_ros.cli.config_docs > docs/parameters.md``."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterator
from typing import Any

from occupancy_nn_ros.camera_settings import CameraConfig
from occupancy_nn_ros.config import Config

HEAD = """<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Made by: python -m occupancy_nn_ros.cli.config_docs -->
# Parameters

The same settings hold for the node and for `occupancy-nn play`. As ROS parameters they go by the names below
(`--ros-args -p map.size_xy_m:=16.0`), in YAML files by nested groups (`map: {size_xy_m: 16.0}`), on the command line as
`--set map.size_xy_m=16`. Defaults are overruled by files in order, files by parameters and the command line. Those marked *live*
can change while the node runs.

The node has some of its own: `cameras` (names), `config_files` (YAML files, comma separated), `autostart` (configure and activate at
start), `map_folder` (where `~/save_map` and `~/load_map` may go), `start_map` (a file in it that is loaded at start, if it is there).
"""


def parameters_page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD, "\n## General\n\n", *_table(Config(), "")]
    parts += ["\n## Each camera\n\n`<camera>` is a name listed in `cameras`.\n\n", *_table(CameraConfig(), "<camera>.")]
    for field in dataclasses.fields(Config):
        value = getattr(Config(), field.name)
        if dataclasses.is_dataclass(value):
            title = (type(value).__doc__ or field.name).splitlines()[0].rstrip(".")
            parts += [f"\n## `{field.name}`: {title[0].lower()}{title[1:]}\n\n", *_table(value, f"{field.name}.")]
    return "".join(parts)


def _table(config: Any, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(type(config))
    yield "| name | default | range | live | meaning |\n|---|---|---|---|---|\n"
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "cameras" or dataclasses.is_dataclass(value):
            continue
        meta = field.metadata
        default = "empty" if value == "" else str(value)
        live = "live" if meta.get("live") else ""
        yield f"| `{prefix}{field.name}` | {default} | {_range(meta, hints[field.name])} | {live} | {meta['help']} |\n"


def _range(meta: Any, hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(typing.get_args(hint))
    low, high = meta.get("low"), meta.get("high")
    return "" if low is None else f"{low:.10g} to {high:.10g}"


if __name__ == "__main__":
    sys.stdout.write(parameters_page())
