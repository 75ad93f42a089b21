# SPDX-License-Identifier: Apache-2.0
"""Foxglove's layout of a recorded map: the room in 3D, a panel for each camera, the grid from above.

``config/foxglove/occupancy.json`` is the layout for one camera; a recording's own is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from occupancy_nn_ros.resources import resource_path

TEMPLATE = "config/foxglove/occupancy.json"


def foxglove_layout(picture_topics: Sequence[tuple[str, str]], base_frame: str) -> str:
    """The layout as JSON text, for Foxglove's "Import from file".

    Args:
        picture_topics: topics of each camera's pictures and of its calibration.
        base_frame: the frame that the 3D panels follow.
    """
    layout: dict[str, Any] = json.loads(resource_path(TEMPLATE).read_text(encoding="utf-8"))
    panels = layout["configById"]
    del panels["Image!camera"]
    for name in ("3D!map", "3D!grid"):
        panels[name]["followTf"] = base_frame
    for number, (image, calibration) in enumerate(picture_topics):
        panels[f"Image!camera{number}"] = {"imageMode": {"imageTopic": image, "calibrationTopic": calibration}}
    names = [f"Image!camera{number}" for number in range(len(picture_topics))]
    side = layout["layout"]["second"]
    layout["layout"]["second"] = {**side, "first": _tiles(names)} if names else "3D!grid"
    return json.dumps(layout, indent=2) + "\n"


def _tiles(names: Sequence[str], direction: str = "row") -> Any:
    """Panels halved in turn, so that all get about the same area."""
    if len(names) == 1:
        return names[0]
    half, other = (len(names) + 1) // 2, {"row": "column", "column": "row"}[direction]
    share = round(100 * half / len(names))
    parts = _tiles(names[:half], other), _tiles(names[half:], other)
    return {"direction": direction, "first": parts[0], "second": parts[1], "splitPercentage": share}
