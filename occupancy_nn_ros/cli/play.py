# SPDX-License-Identifier: Apache-2.0
"""Map a recorded bag without ROS.

Finds cameras, camera_info, frames and transforms by itself, says what it chose, and writes to the output folder:
map.mcap (the node's topics, and what Foxglove and Rerun need to show it), foxglove_layout.json, map.gif (the map growing),
top_down.png, view_3d.png, depth.png (what the cameras saw last) and summary.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from occupancy_nn_ros.cli.settings import (
    add_part,
    add_settings,
    further_decoders,
    make_folder,
    progress_bar,
    read_settings,
)
from occupancy_nn_ros.cli.viewing import add_view, closing, say, shown_in, stay, viewer_asked_for, written_to
from occupancy_nn_ros.config import Config
from occupancy_nn_ros.errors import BagError
from occupancy_nn_ros.runtime.allocator import keep_freed_memory

if TYPE_CHECKING:
    from occupancy_nn_ros.bags.reader import BagPart, BagReader
    from occupancy_nn_ros.runtime.memory import MemoryPlan
    from occupancy_nn_ros.runtime.player import PlayPlan, PlayResult
    from occupancy_nn_ros.values import MapView
    from occupancy_nn_ros.visualization.animation import MapAnimation
    from occupancy_nn_ros.visualization.snapshot import Viewer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("bag", type=Path, help="bag folder, .mcap, .db3 or ROS 1 .bag file")
    parser.add_argument("--out", type=Path, default=Path("out"), help="output folder (default: out)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, nothing else")
    parser.add_argument("--rrd", action="store_true", help="also write map.rrd: occupancy-nn view shows it again")
    parser.add_argument(
        "--ply", action="store_true", help="also write map.ply: the map's surface as coloured triangles"
    )
    add_view(parser)
    add_part(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Play the bag."""
    from occupancy_nn_ros.bags.reader import BagPart
    from occupancy_nn_ros.mapping.surface import import_marching_cubes
    from occupancy_nn_ros.runtime.map_exports import save_for_others

    config = read_settings(args)
    if args.ply:
        import_marching_cubes()  # or the map would be made for nothing
    file = make_folder(args.out) / "map.rrd" if args.rrd else None
    process = viewer_asked_for(args)
    with closing(process, is_kept=args.view == "window"):
        with shown_in(process, config) as seen, written_to(file, config) as written:
            part = BagPart(args.start, args.end)
            result = play(args.bag, config, args.out, quiet=args.json, part=part, viewers=(*seen, *written))
        if args.ply and result.view is not None:
            save_for_others(result.view, args.out / "map.ply", config.outputs.color_by)
        if args.json:
            print(json.dumps(result.summary))
        if args.view == "web" and process is not None and process.is_ours and not any(view.problem for view in seen):
            say("the page is there until Ctrl-C")
            stay(process)
    return 0


def play(
    bag: Path,
    config: Config,
    out: Path,
    *,
    quiet: bool = False,
    part: BagPart | None = None,
    viewers: tuple[Viewer, ...] = (),
) -> PlayResult:
    """Play a bag with progress, write map, pictures and summary, and print what was chosen and found.

    Raises:
        OccupancyError: whatever keeps the bag from being mapped.
    """
    from occupancy_nn_ros.bags.reader import BagReader
    from occupancy_nn_ros.runtime.player import play_bag, write_layout, write_summary
    from occupancy_nn_ros.visualization.animation import MapAnimation

    keep_freed_memory()
    make_folder(out)
    with BagReader(bag, part) as reader:
        plan, memory = plan_within_memory(reader, config)
        animation = MapAnimation(plan.config.grid)
        if not quiet:
            _print_plan(plan, reader.duration_s)
            _print_memory(memory)
        with progress_bar(quiet) as progress:
            task = progress.add_task("mapping", total=max(reader.duration_s, 1e-3))
            result = play_bag(
                reader,
                plan,
                out,
                viewers=(animation, *viewers),
                report=lambda p: progress.update(
                    task, completed=p.done_s, description=f"mapping, {p.keyframes} keyframes"
                ),
                further=further_decoders(),
            )
        if not quiet:
            _print_losses(reader)
    pictures = _draw(result, plan.config, out, truth_beside(bag, result.view), animation)
    write_summary(result, out)
    write_layout(result, out)
    if not quiet:
        _print_result(result, out, pictures)
    if result.view is None:
        raise BagError(f"no keyframe could be made of {bag}; {result.summary['cause']}")
    return result


def plan_within_memory(reader: BagReader, config: Config) -> tuple[PlayPlan, MemoryPlan]:
    """What will be played, with settings that fit into ``max_memory_mib``, and what that takes.

    Raises:
        BagError: no sensor of the wanted kind.
        ConfigError: a configured topic does not exist, or too little memory is allowed.
    """
    from occupancy_nn_ros.runtime.memory import plan_memory
    from occupancy_nn_ros.runtime.player import plan_play

    plan = plan_play(reader, config)
    memory = plan_memory(plan.config, sum(sensor.kind == "image" for sensor in plan.sensors))
    return replace(plan, config=memory.config), memory


def truth_beside(bag: Path, view: MapView | None) -> MapView | None:
    """The simulator's truth in the map's window, if the bag lies beside its world."""
    world_file = (bag if bag.is_dir() else bag.parent) / "world.json"
    if view is None or not world_file.exists():
        return None
    from occupancy_nn_ros.simulation.recording import true_map
    from occupancy_nn_ros.simulation.world import World

    return true_map(World.load(world_file), view)


def _draw(result: PlayResult, config: Config, out: Path, truth: MapView | None, animation: MapAnimation) -> list[Path]:
    """Write what there is to see; returns the files."""
    from occupancy_nn_ros.visualization.depth_picture import draw_depths
    from occupancy_nn_ros.visualization.top_down import draw_top_down
    from occupancy_nn_ros.visualization.voxel_picture import draw_voxels

    if result.view is None:
        return []
    pictures = [out / "top_down.png", out / "view_3d.png"]
    try:
        draw_top_down(result.view, pictures[0], grid=config.grid, path_m=result.path_m, truth=truth)
        draw_voxels(result.view, pictures[1], path_m=result.path_m, color_by=config.outputs.color_by)
        if result.looks:
            pictures.append(out / "depth.png")
            draw_depths(result.looks, pictures[-1])
        if animation.save(out / "map.gif"):
            pictures.append(out / "map.gif")
    except OSError as error:
        raise BagError(f"cannot write pictures to {out}: {error}") from None
    return pictures


def _print_plan(plan: PlayPlan, duration_s: float) -> None:
    print(f"{duration_s:.1f} s, source {plan.config.source}")
    for sensor in plan.sensors:
        frame = sensor.frame_id or plan.frames.get(sensor.topic, "?")
        print(f"  {sensor.name}: {sensor.topic}  info {sensor.info_topic or '-'}  frame {frame}")
    if plan.config.pose_topic:
        print(f"  pose: {plan.config.pose_topic}")
    if plan.config.tf_topic != Config().tf_topic:
        print(f"  transforms: {plan.config.tf_topic}, {plan.config.tf_static_topic}")
    print("  (--set map_frame=..., --set cameras.NAME.image_topic=... and so on change any choice)")


def _print_memory(memory: MemoryPlan) -> None:
    if memory.config.max_memory_mib:
        print(f"memory: at most {memory}, max_memory_mib is {memory.config.max_memory_mib}")
    for text in memory.left_out:
        print(f"  to keep within it, {text}")


def _print_losses(reader: BagReader) -> None:
    for text in reader.warnings:
        print(f"  bag: {text}")
    for topic, why in reader.unreadable.items():
        print(f"  bag: {topic} cannot be read: {why}")


def _print_result(result: PlayResult, out: Path, pictures: list[Path]) -> None:
    summary = result.summary
    total = summary["latency_ms"].get("total")
    timing = f", {total['p50_ms']:.0f} ms median each ({total['p95_ms']:.0f} ms p95)" if total else ""
    frames = summary["frames"]
    if result.view is not None:
        print(f"map frame '{frames['map']}', robot frame '{frames['base']}': {frames['reason']}")
    memory = f", {summary['peak_memory_mib']} MiB of memory at most" if summary["keyframes"] else ""
    print(f"{sum(summary['received'].values())} frames, {summary['keyframes']} keyframes{timing}{memory}")
    for reason, count in summary["dropped"].items():
        example = f" (the last: {summary['problems'][reason]})" if reason in summary["problems"] else ""
        print(f"  not used: {count} {reason}{example}")
    for doubt in summary["doubts"]:
        print(f"  warning: {doubt}")
    if result.view is not None:
        grid = summary["map"]
        print(
            f"map: {grid['occupied']} occupied, {grid['free']} free, {grid['unknown']} unknown voxels of {grid['voxel_size_m']:g} m"
        )
        print(
            f"look at {', '.join(map(str, pictures))}; topics in {out / 'map.mcap'}, figures in {out / 'summary.json'}"
        )
