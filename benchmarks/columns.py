# SPDX-License-Identifier: Apache-2.0
"""Columns of the tables in docs/: headline and key of each figure, how it is written, and goals."""

GRID_COLUMNS = {
    "missed within 3 m": "missed_obstacle_rate_3m", "within 8 m": "missed_obstacle_rate_8m",
    "phantoms within 3 m": "phantom_obstacle_rate_3m", "phantoms within 8 m": "phantom_obstacle_rate_8m",
}  # fmt: skip
PERSON_COLUMNS = {
    "marked after, s": "time_to_mark_s",
    "cleared after, s": "time_to_clear_s",
    "cleared at all": "cleared_share",
}
CLASS_COLUMNS = {"mIoU": "miou", "ray mIoU 1 m": "ray_miou_1m", "2 m": "ray_miou_2m", "4 m": "ray_miou_4m"}
TRUST_COLUMNS = {
    "calibration error (ECE), seen": "ece_visible", "inferred": "ece_inferred", "class right": "class_accuracy",
    "not seen, called free": "unseen_free_share", "of that free": "unseen_free_right",
    "sure depth, share of pixels": "depth_sure_share", "median error": "depth_median_error",
    "within 10 %": "depth_within_10_percent",
}  # fmt: skip
REAL_COLUMNS = {
    "MCC": "mcc", "IoU": "iou", "precision": "precision", "recall": "recall", "ECE, seen": "ece_visible",
    "sure depth: median error": "depth_median_error", "within 10 %": "depth_within_10_percent",
}  # fmt: skip
SOAK_COLUMNS = {
    "keyframes": "keyframes", "rate, Hz": "rate_hz", "rate change": "rate_change",
    "latency p50 at the beginning, ms": "beginning_p50_ms", "latency p50 at the end, ms": "end_p50_ms",
    "latency p95 at the beginning, ms": "beginning_p95_ms", "latency p95 at the end, ms": "end_p95_ms",
    "latency p99 at the beginning, ms": "beginning_p99_ms", "latency p99 at the end, ms": "end_p99_ms",
    "memory, MB": "memory_mb", "memory slope, MB/min": "memory_slope_mb_per_min", "drops": "dropped",
}  # fmt: skip
SOAK_DIGITS = {
    "rate_change": "+.1%", "memory_slope_mb_per_min": "+.1f",
    **dict.fromkeys([key for key in SOAK_COLUMNS.values() if key.endswith("_ms")], 0),
    **dict.fromkeys(["keyframes", "memory_mb", "dropped"], 0),
}  # fmt: skip
SOAK_GOALS = {"rate_change": "2 %", "memory_slope_mb_per_min": "1", "dropped": "none unexplained"}
RECEIVE_COLUMNS = {
    "share of a core, no keyframe due": "cores_no_keyframe_due",
    "images received, no keyframe due": "received_no_keyframe_due",
    "images received, keyframes due": "received",
    "stamp to grid without the network, p50, ms": "without_network_p50_ms",
    "stamp to grid without the network, p95, ms": "without_network_p95_ms",
    "of these: decode, p50, ms": "decode_p50_ms", "integrate, p50, ms": "integrate_p50_ms",
    "encode, p50, ms": "encode_p50_ms", "dropped": "dropped",
}  # fmt: skip
RECEIVE_DIGITS = {
    "cores_no_keyframe_due": 2, "received_no_keyframe_due": ".0%", "received": ".0%", "without_network_p50_ms": 0,
    "without_network_p95_ms": 0, "decode_p50_ms": 1, "integrate_p50_ms": 1, "encode_p50_ms": 1, "dropped": 0,
}  # fmt: skip
RECEIVE_GOALS = {"cores_no_keyframe_due": "0.25", "without_network_p95_ms": "30"}
BUSY_COLUMNS = {
    "p50, s": "p50_s", "p95, s": "p95_s", "at a fair share, s": "fair_s", "processor, s a keyframe": "cpu_each_s",
    "keyframes": "keyframes",
}  # fmt: skip
KEYFRAME_COLUMNS = {"wall p50, ms": "p50_ms", "p95": "p95_ms", "processor, ms": "cpu_ms"}
PRIORITY_COLUMNS = {
    "late p50, ms": "late_p50_ms", "p95": "late_p95_ms", "p99": "late_p99_ms", "most": "late_most_ms",
    "a keyframe, s": "keyframe_p50_s",
}  # fmt: skip
ADAPTING_COLUMNS = {
    "MCC": "mcc", "IoU": "iou", "precision": "precision", "recall": "recall", "depth sure": "depth_sure_share",
    "within 10 %": "depth_within_10_percent", "ECE, seen": "ece_visible", "the judge": "judge", "another place": "elsewhere",
    "MCC there": "elsewhere_mcc",
}  # fmt: skip
ADAPTING_DIGITS = {"depth_sure_share": ".0%", "depth_within_10_percent": ".0%", "judge": "s", "elsewhere": "s"}

EDGE_COLUMNS = {
    "edge cells": "edges", "missed": "missed_edges", "missed, one cell": "missed_edges_tolerant", "missed, 0.5 m": "missed_edges_near",
    "phantom": "phantom_edges",
}  # fmt: skip
WALKER_COLUMNS = {
    "sightings": "people", "found": "found", "with a velocity": "with_velocity", "error, m/s": "velocity_error_m_s",
    "90 %": "velocity_error_p90_m_s", "within two std": "within_two_std", "made up, for each look": "phantoms_per_look",
}  # fmt: skip
ARRIVAL_COLUMNS = {
    "arrivals": "arrivals", "in `~/moving` after, s": "moving_median_s", "within 1 s": "moving_in_time",
    "in the grid after, s": "grid_median_s", "in the grid within 1 s": "grid_in_time",
}  # fmt: skip
BODY_COLUMNS = {"phantom 3 m": "phantom", "phantom cells in a look": "phantoms_per_look", "missed 3 m": "missed"}
