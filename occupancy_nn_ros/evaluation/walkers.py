# SPDX-License-Identifier: Apache-2.0
"""How well a map tells of people who walk: who is found near the robot, how fast they are said to go, and what is made up.

People walk to and fro on free lines around a robot that drives slowly through a simulated world, and are where the simulator has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from occupancy_nn_ros.config import Config, GridConfig
from occupancy_nn_ros.evaluation.changes import is_seen, slow_drive
from occupancy_nn_ros.evaluation.metrics import around_cell
from occupancy_nn_ros.evaluation.truth import WorldTruth, rendered
from occupancy_nn_ros.mapping.moving import FIT_S, Movement, MovementTracker
from occupancy_nn_ros.mapping.slices import LETHAL, band, occupancy_slice
from occupancy_nn_ros.mapping.surface_points import surface_points
from occupancy_nn_ros.runtime.pipeline import OccupancyPipeline
from occupancy_nn_ros.simulation.builder import WorldBuilder
from occupancy_nn_ros.simulation.drives import Drive
from occupancy_nn_ros.simulation.rendering import WorldRenderer
from occupancy_nn_ros.simulation.rigs import Rig
from occupancy_nn_ros.simulation.world import Mover, World
from occupancy_nn_ros.values import FloatArray, MapView, VoxelState

PEOPLE = 4
RANGE_M = 3.0
WITHIN_S = 2.0
FIRST_S = 2.0
"""Looks before this are not judged: nobody has been seen long enough."""

IN_TIME_S = 1.0 + 1e-6
"""Who comes near should be shown within this. Who leaves again before is not missed."""

FOUND_M, PHANTOM_M = 0.5, 1.0
"""A person is found if a moving voxel lies this near; a cluster further than the second from every walker is made up."""

CLEARANCE_M, FROM_ROBOT_M = 0.3, 0.7
"""How far people keep from what stands there, and from the robot."""

HEIGHTS_M = (0.4, 1.0, 1.5)


@dataclass(frozen=True)
class WalkingScene:
    """A world in which people walk about, where they do, and a drive among them.

    Attributes:
        world: with one mover for each person, after those of things that stand still here.
        walkers: each person's path in the map frame.
        drive: of the robot.
    """

    world: World
    walkers: tuple[Mover, ...]
    drive: Drive

    def places(self, time_s: float) -> FloatArray:
        """Where the people are, (P, 2)."""
        return np.array([walker.position(time_s)[:2] for walker in self.walkers])

    def velocities(self, time_s: float) -> FloatArray:
        """How they go, (P, 2) in m/s."""
        return np.asarray((self.places(time_s + 0.05) - self.places(time_s - 0.05)) / 0.1)


@dataclass
class WalkerScore:
    """Sums over all judged looks.

    Attributes:
        people, found, timed: people who walk within ``RANGE_M`` in somebody's sight, those of them that are found, and those of these
            that have a velocity.
        errors_m_s: of the velocities of those who did not turn while it was fitted.
        stds_m_s: what they are said to be off by.
        looks, phantoms: looks at a map, and moving things within ``RANGE_M`` where nobody walks.
        moving_s, grid_s: of each time that somebody came within ``RANGE_M`` and sight, the seconds from the look before until a moving
            voxel, and a lethal cell that nothing else explains, lies within ``FOUND_M``; infinite if none did before he left.
    """

    people: int = 0
    found: int = 0
    timed: int = 0
    errors_m_s: list[float] = field(default_factory=list)
    stds_m_s: list[float] = field(default_factory=list)
    looks: int = 0
    phantoms: int = 0
    moving_s: list[float] = field(default_factory=list)
    grid_s: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Plain values; NaN where nothing was judged."""
        errors, stds = np.array(self.errors_m_s), np.array(self.stds_m_s)
        return {
            "people": float(self.people),
            "found": self.found / self.people if self.people else float("nan"),
            "with_velocity": self.timed / self.people if self.people else float("nan"),
            "velocity_error_m_s": float(np.median(errors)) if len(errors) else float("nan"),
            "velocity_error_p90_m_s": float(np.percentile(errors, 90)) if len(errors) else float("nan"),
            "within_two_std": float((errors < 2 * np.sqrt(2) * stds).mean()) if len(errors) else float("nan"),
            "phantoms_per_look": self.phantoms / self.looks if self.looks else float("nan"),
            "arrivals": float(len(self.grid_s)),
            **{
                f"{name}_{part}": share(np.array(times)) if times else float("nan")
                for name, times in (("moving", self.moving_s), ("grid", self.grid_s))
                for part, share in (("median_s", np.median), ("in_time", lambda s: float((s <= IN_TIME_S).mean())))
            },
        }


class Arrivals:
    """Times each who comes within range and sight of one map, until something shows him."""

    def __init__(self, score: WalkerScore) -> None:
        self._score = score
        self._before_s = float("nan")
        self._since: dict[int, float] = {}
        self._shown: dict[tuple[int, str], float] = {}

    def look(self, time_s: float, present: Mapping[int, FloatArray], shown_m: Mapping[str, FloatArray]) -> None:
        """Take a look: the places (2,) of those who are in range and sight, by number, and points (N, 2) that show somebody, by kind."""
        for index in set(self._since) - set(present):
            self._leave(index)
        for index, place in present.items():
            if index not in self._since:
                self._since[index] = self._before_s
            for kind, points in shown_m.items():
                if len(points) and np.linalg.norm(points - place, axis=1).min() <= FOUND_M:
                    self._shown.setdefault((index, kind), time_s)
        self._before_s = time_s

    def end(self) -> None:
        """Count those who are still there and were shown, or had the time to be."""
        for index in list(self._since):
            self._leave(index)

    def _leave(self, index: int) -> None:
        since = self._since.pop(index)
        shown = {kind: self._shown.pop((index, kind), np.inf) - since for kind in ("moving", "grid")}
        stayed = self._before_s - since
        if np.isfinite(since):  # not there from the first look on
            for kind, times in (("moving", self._score.moving_s), ("grid", self._score.grid_s)):
                if np.isfinite(shown[kind]) or stayed >= IN_TIME_S:
                    times.append(shown[kind])


def plan_walk(world: World, seed: int, duration_s: float) -> WalkingScene:
    """Let people walk around the robot's path.

    Raises:
        SimulationError: the world has no free floor to drive on.
    """
    drive = slow_drive(world, duration_s)
    still = replace(world, movers=tuple(Mover((0.0,), (_place(m),)) for m in world.movers))
    rng = np.random.default_rng([seed, 91])
    build = WorldBuilder(rng)
    walkers: list[Mover] = []
    for _ in range(400):
        if len(walkers) == PEOPLE:
            break
        line = _free_line(still, rng, drive)
        if line is not None:
            walkers.append(_to_and_fro(rng, *line, duration_s))
            build.add_person(0.0, 0.0, 0.0, walkers[-1])
    first = len(still.movers)
    people = tuple(replace(solid, mover=solid.mover + first) for solid in build.solids)
    scene = replace(still, solids=(*still.solids, *people), movers=(*still.movers, *walkers))
    return WalkingScene(scene, tuple(walkers), drive)


def watch_walkers(
    scene: WalkingScene, rig: Rig, config: Config, watched: Sequence[tuple[OccupancyPipeline, bool, WalkerScore]]
) -> None:
    """Drive among the people and judge each map.

    Args:
        scene: from :func:`plan_walk`.
        rig: the robot's cameras.
        config: of the maps.
        watched: empty maps, whether each takes depth images rather than pictures, and where its scores go.
    """
    trackers = [MovementTracker() for _ in watched]
    arrivals = [Arrivals(score) for _, _, score in watched]
    still = WorldTruth(_without_people(scene))
    with WorldRenderer(scene.world) as renderer:
        for frame in rendered(renderer, rig, scene.drive, moving=True):
            for (grid, from_depth, score), tracker, arrival in zip(watched, trackers, arrivals, strict=True):
                grid.step(frame.depths if from_depth else frame.images)
                view = grid.view("odom")
                if view is None:
                    continue
                points = surface_points(grid.looks, config.map.max_range_m)
                movement = tracker.look(view, points, config.grid, WITHIN_S)
                time_s = frame.images.stamp_ns * 1e-9
                if time_s >= FIRST_S:
                    at = time_s, frame.images.T_map_base
                    judge(movement, scene, rig, at, score)
                    moving = np.concatenate([np.zeros((0, 3)), *(c.points_m for c in movement.clusters)])[:, :2]
                    shown = {"moving": moving, "grid": unexplained(view, still.view(view), config.grid)}
                    arrival.look(time_s, in_sight(scene, rig, at), shown)
    for arrival in arrivals:
        arrival.end()


def unexplained(view: MapView, still: MapView, grid: GridConfig) -> FloatArray:
    """Centres (N, 2) of lethal cells of a map near which nothing stands in the band of the same world without people."""
    solid = (still.state == VoxelState.OCCUPIED)[:, :, band(view, grid)].any(axis=2)
    lethal = occupancy_slice(view, grid).values == LETHAL
    cells = np.argwhere(lethal & ~around_cell(solid))
    return np.asarray((cells + view.window.origin[:2] + 0.5) * view.window.voxel_size_m, dtype=np.float64).reshape(
        -1, 2
    )


def in_sight(scene: WalkingScene, rig: Rig, at: tuple[float, FloatArray]) -> dict[int, FloatArray]:
    """Places (2,) of the people within range of the robot whom a camera sees, by number; ``at`` is time and T_map_base (4, 4)."""
    time_s, T_map_base = at
    world = _without_people(scene)
    return {
        index: place
        for index, place in enumerate(scene.places(time_s))
        if np.linalg.norm(place - T_map_base[:2, 3]) <= RANGE_M and is_seen(world, rig, T_map_base, place)
    }


def judge(movement: Movement, scene: WalkingScene, rig: Rig, at: tuple[float, FloatArray], score: WalkerScore) -> None:
    """Add one look to a score; ``at`` is its time and T_map_base (4, 4)."""
    time_s, T_map_base = at
    places, velocities = scene.places(time_s), scene.velocities(time_s)
    score.looks += 1
    is_straight = np.linalg.norm(scene.velocities(time_s - FIT_S) - velocities, axis=1) < 0.1
    for index, place in in_sight(scene, rig, at).items():
        velocity = velocities[index]
        if np.linalg.norm(velocity) < 0.3:
            continue
        score.people += 1
        away = [float(np.linalg.norm(c.points_m[:, :2] - place, axis=1).min()) for c in movement.clusters]
        nearest = int(np.argmin(away)) if away else -1
        if nearest < 0 or away[nearest] > FOUND_M:
            continue
        score.found += 1
        cluster = movement.clusters[nearest]
        if np.isfinite(cluster.std_m_s):
            score.timed += 1
        if np.isfinite(cluster.std_m_s) and is_straight[index]:
            score.errors_m_s.append(float(np.linalg.norm(cluster.velocity_m_s - velocity)))
            score.stds_m_s.append(cluster.std_m_s)
    for cluster in movement.clusters:
        middle = cluster.points_m[:, :2].mean(axis=0)
        near = np.linalg.norm(middle - T_map_base[:2, 3]) <= RANGE_M
        if near and (not len(places) or np.linalg.norm(places - middle, axis=1).min() > PHANTOM_M):
            score.phantoms += 1


def _without_people(scene: WalkingScene) -> World:
    """What can stand between the robot and a person."""
    first = len(scene.world.movers) - len(scene.walkers)
    return replace(scene.world, solids=tuple(s for s in scene.world.solids if s.mover < first))


def _place(mover: Mover) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in mover.position(0.0))
    return x, y, z


def _free_line(world: World, rng: np.random.Generator, drive: Drive) -> tuple[FloatArray, FloatArray] | None:
    """Two ends (2,) of a free line near the drive's path; None if this one is not free."""
    base = drive.T_map_base[int(rng.integers(len(drive.T_map_base)))][:2, 3]
    angle, reach = rng.uniform(-np.pi, np.pi), float(rng.uniform(2.0, 4.0))
    middle = base + rng.uniform(1.2, 2.8) * np.array([np.cos(angle), np.sin(angle)])
    heading = rng.uniform(-np.pi, np.pi)
    half = reach / 2 * np.array([np.cos(heading), np.sin(heading)])
    steps = np.linspace(-1, 1, 13)[:, None]
    line = middle + steps * half
    bodies = np.concatenate([np.column_stack([line, np.full(len(line), z)]) for z in HEIGHTS_M])
    from_robot = np.linalg.norm(line[:, None] - drive.T_map_base[None, :, :2, 3], axis=2).min()
    if from_robot < FROM_ROBOT_M or world.signed_distance(bodies).min() < CLEARANCE_M:
        return None
    return middle - half, middle + half


def _to_and_fro(rng: np.random.Generator, start: FloatArray, end: FloatArray, duration_s: float) -> Mover:
    step = float(np.linalg.norm(end - start) / rng.uniform(0.6, 1.4))
    times = np.arange(0.0, duration_s + step, step)
    ends = [tuple(map(float, (*start, 0.0))), tuple(map(float, (*end, 0.0)))]
    positions = tuple((ends[n % 2][0], ends[n % 2][1], 0.0) for n in range(len(times)))
    return Mover(tuple(map(float, times)), positions)
