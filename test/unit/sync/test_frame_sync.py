# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_nn_ros.config import SyncConfig
from occupancy_nn_ros.sync.frame_sync import FrameSync

MS = 1_000_000


def sync(cameras="ab", **settings_):
    return FrameSync(list(cameras), SyncConfig(**settings_))


def feed(frames, arrivals):
    """Sets, as {camera: stamp in ms}, that (camera, stamp in ms) arrivals complete; items tell where they came from."""
    sets = []
    for camera, stamp in arrivals:
        sets += frames.add(camera, stamp * MS, (camera, stamp))
    return check(sets)


def check(sets):
    for made in sets:
        assert made.items == {camera: (camera, stamp // MS) for camera, stamp in made.stamps_ns.items()}
        assert made.stamp_ns == max(made.stamps_ns.values())
    return [{camera: stamp // MS for camera, stamp in made.stamps_ns.items()} for made in sets]


def in_time_order(*streams):
    """Arrivals of (camera, stamps) streams in order of stamp."""
    return sorted(((camera, stamp) for camera, stamps in streams for stamp in stamps), key=lambda pair: pair[1])


def test_equal_stamps_make_sets_at_once():
    frames = sync("abc")
    arrivals = in_time_order(("a", range(0, 500, 100)), ("b", range(0, 500, 100)), ("c", range(0, 500, 100)))
    assert feed(frames, arrivals) == [{"a": t, "b": t, "c": t} for t in range(0, 500, 100)]
    assert not frames.discarded


def test_one_camera_needs_no_partner():
    frames = sync("a")
    assert feed(frames, [("a", t) for t in (0, 33, 66)]) == [{"a": 0}, {"a": 33}, {"a": 66}]


def test_items_come_in_the_order_of_the_configuration():
    frames = sync("ba")
    frames.add("a", 5, "x")
    (made,) = frames.add("b", 5, "y")
    assert list(made.items.items()) == [("b", "y"), ("a", "x")]


def test_constant_offset_matches_the_nearest():
    frames = sync(tolerance_s=0.05)
    arrivals = in_time_order(("a", range(0, 400, 100)), ("b", range(20, 420, 100)))
    assert feed(frames, arrivals) == [{"a": t, "b": t + 20} for t in range(0, 400, 100)]


def test_offset_beyond_the_tolerance_never_matches():
    frames = sync(tolerance_s=0.03, max_wait_s=0.2)
    arrivals = in_time_order(("a", range(0, 1000, 100)), ("b", range(50, 1050, 100)))
    assert feed(frames, arrivals) == []
    check(frames.flush())
    assert sum(frames.discarded.values()) == 20
    assert {reason for _, reason in frames.discarded} == {"no matching frames of the other cameras"}


def test_exact_partners_win_at_different_rates():
    """A camera at 30 Hz beside one at 10 Hz: each slow frame gets the fast frame of its own stamp."""
    frames = sync(tolerance_s=0.05)
    slow, fast = range(0, 1200, 120), range(0, 1200, 40)
    assert feed(frames, in_time_order(("a", slow), ("b", fast))) == [{"a": t, "b": t} for t in slow]
    assert frames.discarded == {("b", "passed over by a newer set"): 18}


def test_a_drop_of_the_better_partner_does_not_stall():
    frames = sync(tolerance_s=0.05)
    fast = [t for t in range(0, 1200, 40) if t != 480]
    sets = feed(frames, in_time_order(("a", range(0, 1200, 120)), ("b", fast)))
    assert [made["a"] for made in sets] == list(range(0, 1200, 120))
    assert sets[4] == {"a": 480, "b": 440}


def test_frames_of_a_set_lie_within_the_tolerance_of_each_other():
    """Not only of the pivot: 40 ms before and 40 ms after it are 80 ms apart."""
    frames = sync("abc", tolerance_s=0.05)
    assert feed(frames, [("b", 60), ("c", 140), ("a", 100)]) == []


def test_drops_make_no_set_without_a_policy_and_a_partial_one_with_it():
    arrivals = [("a", 0), ("b", 0), ("a", 100), ("b", 200), ("a", 200)]
    strict = sync(max_wait_s=5.0)
    assert feed(strict, arrivals) == [{"a": 0, "b": 0}, {"a": 200, "b": 200}]
    assert sum(strict.discarded.values()) == 1
    lenient = sync(max_wait_s=5.0, min_cameras=1)
    assert feed(lenient, arrivals) == [{"a": 0, "b": 0}, {"a": 100}, {"a": 200, "b": 200}]
    assert not lenient.discarded


def test_a_complete_set_passes_over_what_waits_for_a_partner():
    frames = sync(max_wait_s=5.0, min_cameras=1)
    assert feed(frames, [("a", 100), ("a", 200), ("b", 200)]) == [{"a": 200, "b": 200}]
    assert frames.discarded == {("a", "passed over by a newer set"): 1}


def test_a_dead_camera_is_waited_for_no_longer_than_allowed():
    frames = sync("abc", min_cameras=2, max_wait_s=0.25)
    arrivals = in_time_order(("a", range(0, 1000, 100)), ("b", range(0, 1000, 100)))
    sets = []
    for camera, stamp in arrivals:
        for made in feed(frames, [(camera, stamp)]):
            assert stamp - made["a"] in range(251, 351)
            sets.append(made)
    assert sets == [{"a": t, "b": t} for t in range(0, 700, 100)]
    assert check(frames.flush()) == [{"a": t, "b": t} for t in range(700, 1000, 100)]


def test_a_camera_that_was_silent_for_5_s_is_dead_until_it_sends_again():
    """All cameras must be in a set; those that live, that is."""
    frames = sync("abc", max_wait_s=0.25)
    steady = [("a", range(0, 8000, 100)), ("b", range(0, 8000, 100)), ("c", range(0, 1000, 100))]
    sets = feed(frames, in_time_order(*steady))
    assert frames.living == ("a", "b")
    assert sets[:10] == [{"a": t, "b": t, "c": t} for t in range(0, 1000, 100)]
    assert sets[10:] == [{"a": t, "b": t} for t in range(5700, 8000, 100)]
    assert frames.discarded == {(c, "no matching frames of the other cameras"): 47 for c in "ab"}
    again = feed(frames, in_time_order(*((c, range(8000, 8300, 100)) for c in "cab")))
    assert frames.living == ("a", "b", "c")
    assert again == [{"a": t, "b": t, "c": t} for t in range(8000, 8300, 100)]


def test_a_camera_that_never_sends_is_waited_for_as_long():
    frames = sync("ab", max_wait_s=0.25)
    sets = feed(frames, [("a", t) for t in range(0, 6000, 100)])
    assert sets == [{"a": t} for t in range(4800, 6000, 100)]


def test_a_configured_number_of_cameras_holds_whoever_lives():
    frames = sync("ab", min_cameras=2, max_wait_s=0.25)
    assert feed(frames, [("a", t) for t in range(0, 9000, 100)]) == []


def test_flush_makes_what_can_be_made_and_counts_the_rest():
    frames = sync("ab", min_cameras=2, max_wait_s=10.0)
    feed(frames, [("a", 0), ("a", 100), ("b", 200)])
    assert check(frames.flush()) == []
    assert frames.discarded == {
        ("a", "no matching frames of the other cameras"): 2,
        ("b", "no matching frames of the other cameras"): 1,
    }


def test_late_and_repeated_frames_are_counted():
    frames = sync("ab")
    assert len(feed(frames, [("a", 0), ("b", 0), ("a", 200), ("b", 200)])) == 2
    assert feed(frames, [("a", 100), ("a", 200), ("b", 199), ("a", 300), ("a", 300)]) == []
    assert frames.discarded == {
        ("a", "older than the last set"): 1,
        ("b", "older than the last set"): 1,
        ("a", "duplicate stamp"): 2,
    }


def test_a_full_queue_drops_its_oldest():
    frames = sync("ab", queue=3, max_wait_s=60.0)
    feed(frames, [("a", t) for t in range(0, 500, 100)])
    assert frames.discarded == {("a", "queue full"): 2}
    assert feed(frames, [("b", 400)]) == [{"a": 400, "b": 400}]


def test_a_jump_back_in_time_starts_afresh():
    frames = sync("ab", max_wait_s=60.0)
    feed(frames, [("a", 50_000), ("b", 50_000), ("a", 50_100)])
    assert feed(frames, [("a", 1000), ("b", 1000)]) == [{"a": 1000, "b": 1000}]
    assert frames.discarded == {("a", "time jumped back"): 1}


def test_one_absurd_stamp_does_no_lasting_harm():
    frames = sync("ab", min_cameras=2)
    feed(frames, [("a", 0), ("b", 0), ("a", 10**10)])
    sets = feed(frames, in_time_order(("a", range(100, 500, 100)), ("b", range(100, 500, 100))))
    assert sets[-2:] == [{"a": t, "b": t} for t in (300, 400)]


cameras = st.sampled_from("abc")
arrivals = st.lists(st.tuples(cameras, st.integers(0, 900)), max_size=60)
streams = st.lists(st.tuples(st.integers(20, 150), st.integers(0, 60), st.integers(1, 9)), min_size=3, max_size=3)


@settings(max_examples=200)
@given(
    arrivals, st.integers(0, 3), st.sampled_from([0.0, 0.02, 0.1]), st.integers(1, 5), st.sampled_from([0.0, 0.1, 1.0])
)
def test_no_frame_is_lost_unseen(arrived, min_cameras, tolerance, queue, wait):
    """Frames in = frames used + frames discarded, whatever arrives; each frame is used at most once."""
    frames = sync("abc", tolerance_s=tolerance, min_cameras=min_cameras, queue=queue, max_wait_s=wait)
    arrived = [(camera, stamp * 4) for camera, stamp in arrived]  # up to 3.6 s, so that time may jump back
    sets = feed(frames, arrived)
    waiting = sum(len(stamps) for stamps in frames._stamps.values())
    used = sum(map(len, sets))
    assert len(arrived) == used + sum(frames.discarded.values()) + waiting
    sets += check(frames.flush())
    assert len(arrived) == sum(map(len, sets)) + sum(frames.discarded.values())
    for made in sets:
        assert len(made) >= (min_cameras or 3)
        assert max(made.values()) - min(made.values()) <= round(tolerance * 1000)
    if ("a", "time jumped back") not in frames.discarded:
        uses = Counter((camera, stamp) for made in sets for camera, stamp in made.items())
        arrivals_ = Counter(arrived)
        assert all(uses[key] <= arrivals_[key] for key in uses)


@settings(max_examples=100)
@given(streams, st.randoms(use_true_random=False))
def test_sets_of_steady_streams_come_in_order(rates, random):
    """Cameras with own rates, offsets and drops that arrive in order: every camera's frames are used in order."""
    frames = sync("abc", tolerance_s=0.04, min_cameras=1, max_wait_s=0.3)
    every = [(c, [o + n * p for n in range(20) if random.randrange(10) >= d // 2])
             for c, (p, o, d) in zip("abc", rates, strict=True)]  # fmt: skip
    arrived = in_time_order(*every)
    sets = feed(frames, arrived) + check(frames.flush())
    for camera in "abc":
        stamps = [made[camera] for made in sets if camera in made]
        assert stamps == sorted(set(stamps))


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=30, unique=True))
def test_exact_stamps_match_whatever_the_order_of_arrival_within_a_stamp(stamps):
    frames = sync("ab", tolerance_s=0.0)
    arrived = [(c, s) for s in sorted(stamps) for c in ("ab" if s % 2 else "ba")]
    assert feed(frames, arrived) == [{"a": s, "b": s} for s in sorted(stamps)]


def test_an_unknown_camera_is_an_error():
    with pytest.raises(KeyError):
        sync("ab").add("z", 0, None)
