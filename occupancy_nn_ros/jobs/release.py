# SPDX-License-Identifier: Apache-2.0
"""Which code this is: two machines whose ``RELEASE`` agrees understand each other, and make the same of the same input."""

from __future__ import annotations

import hashlib
import pkgutil
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def source_digest(package: Path = PACKAGE) -> str:
    """Eight digits that change with any Python file of the package."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


RELEASE = f"occupancy_nn_ros {pkgutil.resolve_name('occupancy_nn_ros:__version__')} ({source_digest()})"
