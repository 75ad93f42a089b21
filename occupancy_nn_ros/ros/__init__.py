# SPDX-License-Identifier: Apache-2.0
"""The live ROS 2 node; the only place that imports rclpy."""
