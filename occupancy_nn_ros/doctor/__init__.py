# SPDX-License-Identifier: Apache-2.0
"""What could keep a map from coming, on a bag or a running robot."""
