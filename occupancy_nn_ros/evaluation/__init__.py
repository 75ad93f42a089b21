# SPDX-License-Identifier: Apache-2.0
"""How right predictions and maps are: scores, and the calibration that follows from them."""
