"""Streams of random numbers: each its own, and the same as when files were written with it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tipl.core.seeds import Stream

NUMBERS = {
    "EPISODES": 0,
    "INITIAL_NETWORK": 1,
    "ENVIRONMENT": 2,
    "ACTION_NOISE": 3,
    "MINIBATCHES": 4,
    "PHYSICS": 5,
    "JUMP_TESTS": 6,
    "WORLDS": 7,
    "EPISODE_PHYSICS": 8,
    "FRESH_NETWORKS": 9,
}


def test_a_stream_has_the_number_that_datasets_were_collected_with() -> None:
    assert {stream.name: stream.value for stream in Stream} == NUMBERS


def test_no_two_streams_draw_the_same_numbers() -> None:
    drawn = Counter(
        stream.number(seed, index) for stream in Stream for seed in range(3) for index in range(9)
    )
    assert set(drawn.values()) == {1}


@pytest.mark.parametrize("stream", Stream)
def test_a_stream_is_told_by_seed_index_and_number(stream: Stream) -> None:
    drawn = stream.rng(3, 7, 2).random(4)
    expected = np.random.default_rng((3, 7, NUMBERS[stream.name], 2)).random(4)
    np.testing.assert_array_equal(drawn, expected)
    number = np.random.SeedSequence((3, 7, NUMBERS[stream.name])).generate_state(1)[0]
    assert stream.number(3, 7) == number


def test_an_episode_starts_as_it_did_before_streams_had_numbers() -> None:
    for seed, episode in ((0, 0), (0, 3), (12, 1), (2**40, 5)):
        old = np.random.SeedSequence((seed, episode)).generate_state(1)[0]
        assert Stream.EPISODES.number(seed, episode) == old
