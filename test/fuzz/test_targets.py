# SPDX-License-Identifier: Apache-2.0
"""What the fuzzer found stays a test; and every target reads its seeds and survives a few hundred damaged ones."""

import random
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from targets import TARGETS  # noqa: E402

CRASHES = sorted(path for path in (HERE / "crashes").iterdir() if not path.name.startswith("."))
UNREADABLE_SEEDS = {"checkpoint", "shard"}
"""Files without weights or with too few arrays, so that they are short: they have to be refused."""


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: path.name)
def test_what_once_crashed_is_read_or_refused(path):
    TARGETS[path.name.rsplit("-", 2)[0]].survive(path.read_bytes())


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in UNREADABLE_SEEDS])
def test_seeds_are_read(name):
    for seed in TARGETS[name].seeds():
        TARGETS[name].read(seed)


def damaged(seed: bytes, rng: random.Random) -> bytes:
    """A seed with bytes changed, repeated, dropped or cut off."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(5):
            case 0 if data:
                data[at] = rng.randrange(256)
            case 1:
                data[at:at] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x00", b": ", b"- ", b"{", b'"', b"nan"]
                )
            case 2:
                del data[at : at + rng.randint(1, 16)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 32)]
            case _:
                data = data[: rng.randint(0, len(data))] if rng.random() < 0.2 else data
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds_are_read_or_refused(name):
    rng = random.Random(name)
    for _ in range(60 if "bag" in name else 200):
        TARGETS[name].survive(damaged(rng.choice(TARGETS[name].seeds()), rng))
