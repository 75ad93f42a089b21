# SPDX-License-Identifier: Apache-2.0
"""Compiled ray integration on the CPU: collect one ray for each end voxel, walk them and mark the voxels they pass.

Coordinates are in voxels from the window's lowest corner. A ray is followed from its end towards the sensor, from one
voxel plane of its longest axis to the next, and marks the voxel on either side of each plane. Marks do not depend on
the order of the rays, so the result is the same for any number of threads, and the same as that of ``ray_reference``,
voxel for voxel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from occupancy_nn_ros.compute.compiled import kernel
from occupancy_nn_ros.mapping.marks import BLOCK_BITS, HIT, MISSED_END, PASS, Marks
from occupancy_nn_ros.values import Float32Array, FloatArray

INSIDE = 1e-6
"""Rays cut off by the window end this many voxels inside it."""

Triple = tuple[float, float, float]
Limits = tuple[float, float, float, float]


@kernel
def clip(origin: Triple, way: Triple, limits: Triple) -> tuple[float, float]:
    """Part of ``origin + t * way`` inside the window, as first and last t within 0 and 1; empty if first >= last."""
    first, last = 0.0, 1.0
    for axis in range(3):
        if way[axis] == 0.0:
            if origin[axis] < 0.0 or origin[axis] >= limits[axis]:
                return 1.0, 0.0
        else:
            low, high = (0.0 - origin[axis]) / way[axis], (limits[axis] - origin[axis]) / way[axis]
            first, last = max(first, min(low, high)), min(last, max(low, high))
    return first, last


@kernel
def add_ray(
    origin: Triple, end: Triple, limits: Limits, merge: bool, marks: Marks, rays: FloatArray, count: int
) -> int:
    """Mark where a ray ends and append it, cut to range and window, to ``rays`` (N, 7): end, origin, is it a hit.

    Args:
        origin: in voxels of the window.
        end: likewise.
        limits: window size (X, Y, Z) and range, in voxels.
        merge: leave a ray out if one to the same voxel was appended.
        marks: changed in place.
        rays: written at ``count``.
        count: rays so far.

    Returns:
        The new count.
    """
    x, y, z, reach = limits
    way = (end[0] - origin[0], end[1] - origin[1], end[2] - origin[2])
    length = np.sqrt(way[0] * way[0] + way[1] * way[1] + way[2] * way[2])
    hit = end[0] >= 0 and end[1] >= 0 and end[2] >= 0 and end[0] < x and end[1] < y and end[2] < z and length <= reach
    first, last = clip(origin, way, (x, y, z))
    if length > reach:
        last = min(last, reach / length)
    if hit:
        last = 1.0
    if first >= last:
        return count
    row = rays[count]
    for axis in range(3):
        row[axis] = min(max(origin[axis] + last * way[axis], 0.0), limits[axis] - INSIDE)
        row[3 + axis] = min(max(origin[axis] + first * way[axis], 0.0), limits[axis] - INSIDE)
        if hit:
            row[axis] = end[axis]
    row[6] = 1.0 if hit else 0.0
    cell = marks.along_x[int(row[0])] + marks.along_y[int(row[1])] + marks.along_z[int(row[2])]
    if merge and marks.cells[cell] & (HIT if hit else MISSED_END):
        return count
    marks.flags[cell >> (3 * BLOCK_BITS)] = 1
    marks.cells[cell] |= HIT if hit else MISSED_END | PASS
    return count + 1


@kernel
def is_merged(origin: Triple, end: Triple, limits: Limits, marks: Marks) -> bool:
    """Whether a ray ends in a voxel that was hit before, as most rays of a dense scan do; cheap."""
    x, y, z, reach = limits
    if not (end[0] >= 0 and end[1] >= 0 and end[2] >= 0 and end[0] < x and end[1] < y and end[2] < z):
        return False
    cell = marks.along_x[int(end[0])] + marks.along_y[int(end[1])] + marks.along_z[int(end[2])]
    if not marks.cells[cell] & HIT:
        return False
    a, b, c = end[0] - origin[0], end[1] - origin[1], end[2] - origin[2]
    return a * a + b * b + c * c <= 0.999999 * reach * reach


@kernel
def moved(pose: FloatArray, x: float, y: float, z: float) -> Triple:
    """A point (x, y, z) mapped by a (4, 4) transform."""
    return (
        pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3],
        pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3],
        pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3],
    )


@kernel
def collect_points(
    origins: FloatArray, points: npt.NDArray[Any], pose: FloatArray, frame: tuple[float, Triple], limits: Limits,
    marks: Marks, rays: FloatArray,
) -> tuple[int, int, int]:  # fmt: skip
    """Rays to points.

    Args:
        origins: (1, 3) or (N, 3) metres in the map frame; with one, rays that end in the same voxel are merged.
        points: (N, 3) float32 or float64.
        pose: (4, 4) maps points into the map frame.
        frame: edge of a voxel in metres and the window's origin in voxels.
        limits: as in :func:`add_ray`.
        marks: likewise.
        rays: likewise.

    Returns:
        Rays appended, ends that are not finite, and rays of no length.
    """
    edge, (i, j, k) = frame
    count, broken, short = 0, 0, 0
    one = len(origins) == 1
    for n in range(len(points)):
        o = origins[0 if one else n]
        e = moved(pose, np.float64(points[n, 0]), np.float64(points[n, 1]), np.float64(points[n, 2]))
        distance = abs(e[0] - o[0]) + abs(e[1] - o[1]) + abs(e[2] - o[2])
        if not np.isfinite(distance):
            broken += 1
        elif distance <= 1e-6:
            short += 1
        else:
            origin = (o[0] / edge - i, o[1] / edge - j, o[2] / edge - k)
            end = (e[0] / edge - i, e[1] / edge - j, e[2] / edge - k)
            if not (one and is_merged(origin, end, limits, marks)):
                count = add_ray(origin, end, limits, one, marks, rays, count)
    return count, broken, short


@kernel
def collect_depth(
    depth: Float32Array, tangents: Float32Array, pose: FloatArray, limits: Limits, marks: Marks, rays: FloatArray
) -> tuple[int, int, int]:
    """Rays through the measured pixels of a depth image.

    Args:
        depth: (N,) metres along the optical axis; 0 or NaN: not measured.
        tangents: (N, 2) x / z and y / z of each pixel's ray; NaN: no ray.
        pose: (4, 4) maps the camera's metres into voxels of the window.
        limits: as in :func:`add_ray`.
        marks: likewise.
        rays: likewise.

    Returns:
        Rays appended, pixels measured, and measured pixels without a finite point.
    """
    count, measured, broken = 0, 0, 0
    origin = (pose[0, 3], pose[1, 3], pose[2, 3])
    for n in range(len(depth)):
        z = np.float64(depth[n])
        if not z > 0.0:
            continue
        measured += 1
        x, y = tangents[n, 0] * z, tangents[n, 1] * z
        if not np.isfinite(x + y + z):
            broken += 1
            continue
        end = moved(pose, x, y, z)
        if not is_merged(origin, end, limits, marks):
            count = add_ray(origin, end, limits, True, marks, rays, count)
    return count, measured, broken


@kernel
def walk(start: int, stop: int, rays: FloatArray, marks: Marks, graze_share: float, value: int) -> None:
    """Follow rays ``start`` to ``stop`` and set unmarked voxels to PASS or GRAZE.

    All passes come before all grazes: then marks only ever change from 0 to one value, and threads cannot disturb each
    other.

    Args:
        start: first of ``rays`` to process.
        stop: the one after the last.
        rays: (N, 7) as left by :func:`add_ray`.
        marks: changed in place.
        graze_share: share of a hitting ray's length before its end where it only grazes.
        value: PASS for the far part of the rays, GRAZE for the part near their ends.
    """
    for n in range(start, stop):
        ray = rays[n]
        wx, wy, wz = ray[3] - ray[0], ray[4] - ray[1], ray[5] - ray[2]
        ax, ay, az = abs(wx), abs(wy), abs(wz)
        if ax >= ay and ax >= az:
            lead, b, c, tables = 0, 1, 2, (marks.along_x, marks.along_y, marks.along_z)
        elif ay >= az:
            lead, b, c, tables = 1, 0, 2, (marks.along_y, marks.along_x, marks.along_z)
        else:
            lead, b, c, tables = 2, 0, 1, (marks.along_z, marks.along_x, marks.along_y)
        way = ray[3 + lead] - ray[lead]
        at, to = int(ray[lead]), int(ray[3 + lead])
        if at == to:
            continue
        planes, sign = abs(to - at), 1 if to > at else -1
        before = at + 1 - ray[lead] if way > 0 else ray[lead] - at
        slope_b, slope_c = (ray[3 + b] - ray[b]) / abs(way), (ray[3 + c] - ray[c]) / abs(way)
        grazed = 0
        if ray[6] != 0.0:
            grazed = min(planes, max(0, int(np.ceil(graze_share * abs(way) - before))))
        span = (grazed, planes) if value == PASS else (0, grazed)
        line = (ray[b] + before * slope_b, slope_b, ray[c] + before * slope_c, slope_c)
        _mark_line(marks, tables, (at, sign), line, span, value)


@kernel
def _mark_line(
    marks: Marks, tables: tuple[npt.NDArray[np.int32], ...], lead: tuple[int, int], line: Limits,
    span: tuple[int, int], value: int,
) -> None:  # fmt: skip
    """Mark the voxels on both sides of planes ``span`` where they are unmarked."""
    at, sign = lead
    b, slope_b, c, slope_c = line
    cells, flags, mark = marks.cells, marks.flags, np.uint8(value)
    along, table_b, table_c = tables[0], tables[1], tables[2]
    for plane in range(span[0], span[1]):
        # Without branches, which would be guessed wrong too often; writing a mark back unchanged disturbs no one.
        rest = table_b[np.uintp(b + plane * slope_b)] + table_c[np.uintp(c + plane * slope_c)]
        cell = np.uintp(along[np.uintp(at + sign * plane)] + rest)
        known = cells[cell]
        cells[cell] = known if known != 0 else mark
        flags[cell >> np.uintp(3 * BLOCK_BITS)] = 1
        cell = np.uintp(along[np.uintp(at + sign * (plane + 1))] + rest)
        known = cells[cell]
        cells[cell] = known if known != 0 else mark
        flags[cell >> np.uintp(3 * BLOCK_BITS)] = 1
