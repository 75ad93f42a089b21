# SPDX-License-Identifier: Apache-2.0
"""Training targets, losses, metrics and the training loop."""
