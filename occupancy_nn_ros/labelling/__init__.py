# SPDX-License-Identifier: Apache-2.0
"""Recordings with a range sensor turned into training data."""
