"""What `power_step` and `robust_tensor_power` refuse, and in which words."""

import numpy as np
import pytest

from gmm import power_step, robust_tensor_power
from tests.gmm.spectral_cases import planted

NAN = np.full((2, 2, 2), np.nan)
BAD_TENSORS = [
    (NAN, r"T must be finite, got nan at \(0, 0, 0\)"),
    (np.ones((2, 2)), r"T must be a third-order tensor of shape \(d, d, d\), got shape \(2, 2\)"),
    (np.ones((2, 3, 2)), r"T must be cubic, of shape \(d, d, d\) with d >= 1, got shape \(2, 3, 2\)"),
    (np.ones((0, 0, 0)), r"T must be cubic, of shape \(d, d, d\) with d >= 1, got shape \(0, 0, 0\)"),
]


@pytest.mark.parametrize(("T", "message"), BAD_TENSORS)
def test_bad_tensors_are_refused(T, message):
    with pytest.raises(ValueError, match=message):
        power_step(T, np.ones(T.shape[0]))
    with pytest.raises(ValueError, match=message):
        robust_tensor_power(T, 1, rng=np.random.default_rng(0))


def test_asymmetric_tensors_are_refused_where_symmetry_is_needed():
    T = np.zeros((2, 2, 2))
    T[0, 1, 1] = 3
    assert power_step(T, [1.0, 1.0]).tolist() == [3.0, 0.0]
    with pytest.raises(ValueError, match=r"T must be symmetric, but entries .* differ by up to 3"):
        robust_tensor_power(T, 1, rng=np.random.default_rng(0))
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # symmetric in two indices only
        half = np.transpose(np.multiply.outer(np.eye(2), [1.0, 2.0]), order)
        with pytest.raises(ValueError, match="T must be symmetric"):
            robust_tensor_power(half, 1, rng=np.random.default_rng(0))
    rounded = planted(6, 3, np.random.default_rng(0))[0].astype(np.float32)
    robust_tensor_power(rounded, 3, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("v", "message"),
    [
        (np.ones(3), r"v must have shape \(\.\.\., 2\), got \(3,\)"),
        (1.0, r"v must have shape \(\.\.\., 2\), got \(\)"),
        (np.ones((0, 2)), r"v must have shape \(\.\.\., 2\), got \(0, 2\)"),
        ([1.0, np.inf], "v must be finite, got inf"),
    ],
)
def test_bad_directions_are_refused(v, message):
    with pytest.raises(ValueError, match=message):
        power_step(np.ones((2, 2, 2)), v)


def test_overflow_is_an_error():
    with pytest.raises(OverflowError, match=r"entries of T are up to 1, of v up to 1e\+200; divide v"):
        power_step(np.ones((2, 2, 2)), [1e200, 0])


GOOD = {"n_components": 2, "rng": np.random.default_rng(0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_components": 4}, "n_components must be between 1 and the dimension 3 of T, got 4"),
        ({"n_components": 0}, "n_components must be between 1 and the dimension 3 of T, got 0"),
        ({"n_restarts": 0}, "n_restarts and n_iter must be at least 1 .*, got 0, 30 and 30"),
        ({"n_iter": 0}, "n_restarts and n_iter must be at least 1 .*, got 20, 0 and 0"),
        ({"n_polish": -1}, "and n_polish at least 0, got 20, 30 and -1"),
        ({"rng": None}, "give rng to draw starts from, or the starts themselves"),
        ({"starts": np.ones((2, 3))}, r"starts must have shape \(2, R, 3\), got \(2, 3\)"),
        ({"starts": np.ones((3, 1, 3))}, r"starts must have shape \(2, R, 3\), got \(3, 1, 3\)"),
        ({"starts": np.ones((2, 0, 3))}, r"starts must have shape \(2, R, 3\), got \(2, 0, 3\)"),
        ({"starts": np.full((2, 1, 3), np.nan)}, "starts must be finite, got nan"),
        ({"starts": [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]]]}, "start 1 of component 1 is zero"),
        ({"n_components": 3}, "T has only 2 of 3 components: .* which is rounding; ask for fewer"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    T, _, _ = planted(3, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        robust_tensor_power(T, **(GOOD | arguments))


def test_a_zero_tensor_has_no_component():
    with pytest.raises(ValueError, match="T has only 0 of 1 components"):
        robust_tensor_power(np.zeros((2, 2, 2)), 1, rng=np.random.default_rng(0))
