"""The verdict on a failure."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vigintd.errors import HostRefused, HostUnavailable, MailUnavailable, StreamLost, TransientError, VigintdError
from vigintd.retry import Backoff, GiveUp, RetryIn, verdict

seconds = st.floats(0, 1e6)
backoffs = st.builds(lambda first, times: Backoff(first, first * times), st.floats(0.001, 100), st.floats(1, 1000))


@given(
    attempt=st.integers(1, 10_000),
    age_s=seconds,
    life_s=seconds,
    asked_s=st.none() | seconds,
    backoff=backoffs,
    seed=st.integers(),
)
def test_a_transient_failure_is_tried_again_within_its_life_only(*, attempt, age_s, life_s, asked_s, backoff, seed):
    """The wait honours what was asked, keeps to its bounds, and never ends after the thing has expired."""
    error = HostUnavailable("busy", retry_after_s=asked_s)
    answer = verdict(error, attempt=attempt, age_s=age_s, life_s=life_s, backoff=backoff, random=Random(seed))
    match answer:
        case RetryIn(delay_s):
            assert delay_s >= (asked_s or 0)
            assert backoff.first_s / 2 <= delay_s <= max(backoff.cap_s, asked_s or 0)
            assert age_s + delay_s <= life_s
        case GiveUp(reason):
            assert reason == f"gave up after {attempt} attempts: busy"
            assert age_s + max(backoff.cap_s, asked_s or 0) > life_s


@given(attempt=st.integers(1, 100), age_s=seconds)
def test_a_permanent_failure_is_never_tried_again(attempt, age_s):
    """Nor is one that nobody foresaw."""
    for error in (HostRefused("wrong key"), RuntimeError("wrong key")):
        answer = verdict(error, attempt=attempt, age_s=age_s, life_s=1e9, backoff=Backoff(), random=Random(0))
        assert answer == GiveUp("wrong key")


@given(backoff=backoffs, seed=st.integers())
def test_the_bound_doubles_up_to_the_cap(backoff, seed):
    """Each delay lies in the upper half of its bound."""
    random = Random(seed)
    for attempt in range(1, 60):
        bound_s = min(backoff.cap_s, backoff.first_s * 2.0 ** min(attempt - 1, 32))
        assert bound_s / 2 <= backoff.delay_s(attempt, random) <= bound_s


@pytest.mark.parametrize("error", [StreamLost("x", reason="ended"), MailUnavailable("x"), TransientError("x")])
def test_every_leaf_has_the_one_root(error):
    """One `except` at the top is enough."""
    assert error.retry_after_s is None
    root: Exception = error
    assert isinstance(root, VigintdError)
