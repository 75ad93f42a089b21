# SPDX-License-Identifier: Apache-2.0
"""Whose topics are whose, where several robots share one graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from occupancy_nn_ros.messages.names import CAMERA_INFO, TF_MESSAGE


def search_rings(topics: Mapping[str, str], namespace: str, named: Collection[str] = ()) -> list[dict[str, str]]:
    """Where to look for sensors, the nearest topics first; each ring holds the ones before it.

    The node's own namespace comes first, then all that belongs to no other robot, and last, for a node in the root, the only
    robot there is. The images of one robot must never be placed with the transforms of another.

    Args:
        topics: message type of every topic in the graph.
        namespace: the node's, ``/`` or ``/robot1``.
        named: topics that are configured by name, which every ring holds.
    """
    others = other_robots(topics, namespace)
    free = {name for name in topics if not any(_is_below(name, robot) for robot in others)}
    own = {name for name in free if _is_below(name, namespace)}
    rings = [own, free, set(topics)] if namespace == "/" and len(others) == 1 else [own, free]
    always = {name for name, msgtype in topics.items() if name in named or msgtype == CAMERA_INFO}
    made: list[dict[str, str]] = []
    for ring in rings:
        found = {name: msgtype for name, msgtype in topics.items() if name in ring | always}
        if not made or found != made[-1]:
            made.append(found)
    return made


def other_robots(topics: Mapping[str, str], namespace: str) -> list[str]:
    """Namespaces with transforms of their own, which makes them robots; not the given one, nor one that it lies in."""
    roots = {
        name.removesuffix("/tf") for name, msgtype in topics.items() if msgtype == TF_MESSAGE and name.endswith("/tf")
    }
    return sorted(root for root in roots if root and not _is_below(namespace, root))


def _is_below(name: str, namespace: str) -> bool:
    return f"{name}/".startswith(f"{namespace.rstrip('/')}/")
