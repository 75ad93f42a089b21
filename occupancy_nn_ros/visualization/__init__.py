# SPDX-License-Identifier: Apache-2.0
"""Pictures of a map that a person can judge at a glance."""
