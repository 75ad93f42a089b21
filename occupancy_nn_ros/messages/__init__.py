# SPDX-License-Identifier: Apache-2.0
"""CDR bytes to core types and back; the only place that knows ROS message layouts."""
