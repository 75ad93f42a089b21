# SPDX-License-Identifier: Apache-2.0
"""Independent jobs on processes of this machine or on the workers of a cluster."""
