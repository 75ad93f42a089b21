# SPDX-License-Identifier: Apache-2.0
"""How this process computes: compiled kernels, and threads of its own."""
