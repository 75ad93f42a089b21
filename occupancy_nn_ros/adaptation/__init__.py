# SPDX-License-Identifier: Apache-2.0
"""A model that has learned a site from nothing but recordings of its cameras."""
