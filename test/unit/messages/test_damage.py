# SPDX-License-Identifier: Apache-2.0
"""Every decoder against bytes that are cut off, changed, or lie about their lengths."""

import struct
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from message_samples import MESSAGES, PIXELS

from occupancy_nn_ros.errors import CalibrationError, MessageError, TransformError
from occupancy_nn_ros.messages import sensors
from occupancy_nn_ros.messages.headers import peek_header

REFUSED = (MessageError, CalibrationError, TransformError)
"""Damage may make another message that decodes, but holds no usable numbers."""


@pytest.mark.parametrize("name", MESSAGES)
def test_undamaged_messages_decode(name):
    read, cdr = MESSAGES[name]
    read(cdr)


@pytest.mark.parametrize("name", [name for name in MESSAGES if name != "header"])
def test_cut_off_at_every_byte(name):
    read, cdr = MESSAGES[name]
    for length in range(len(cdr)):
        with pytest.raises(MessageError):
            read(cdr[:length])


def test_header_cut_off_at_every_byte():
    cdr = sensors.encode_image(1, "cam", PIXELS)
    for length in range(20):
        with pytest.raises(MessageError):
            peek_header(cdr[:length])


@pytest.mark.parametrize("lie", [0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("name", MESSAGES)
def test_any_word_may_lie(name, lie):
    """Each aligned 32-bit word in turn, lengths among them, without allocating more than a few megabytes."""
    read, cdr = MESSAGES[name]
    tracemalloc.start()
    try:
        for at in range(4, min(len(cdr) - 3, 400), 4):
            changed = bytearray(cdr)
            struct.pack_into("<I", changed, at, lie)
            with suppress(*REFUSED):
                read(bytes(changed))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=150)
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_random_damage(name, data):
    read, cdr = MESSAGES[name]
    changed = bytearray(cdr)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(cdr) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(cdr)), st.integers(0, len(cdr))))
    with suppress(*REFUSED):
        read(bytes(changed[:end]))


@settings(max_examples=150)
@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=300))
def test_random_bytes(name, tail):
    read, _ = MESSAGES[name]
    for start in (b"", b"\x00\x01\x00\x00", b"\x00\x00\x00\x00"):
        with suppress(*REFUSED):
            read(start + tail)
