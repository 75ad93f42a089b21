# SPDX-License-Identifier: Apache-2.0
"""The occupancy network: tensors in, tensors out."""
