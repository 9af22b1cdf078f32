"""What constructions check before they build and run: every comparison at its exact end."""

import math
import re

import numpy as np
import pytest

from constructions import EMTransformer
from constructions.construction import LARGEST, Estimate, as_array
from constructions.limits import check_bytes, check_log_range, check_rounding, shown_above, shown_below
from constructions.mixture import as_problem


def exactly(message):
    return f"^{re.escape(message)}$"


def build(d0=1, K0=2, **options):
    return EMTransformer(d0, K0, **({"eps": 0.1, "r_max": 3.0, "pi_min": 0.1} | options))


# ---- ranges


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 705), ("float32", 85)])
def test_the_largest_range_of_a_logarithm(dtype, limit):
    """log A may be the limit itself and not 0; so may -log pi_min, and the logs are built."""
    least = math.exp(-limit)
    assert -math.log(least) == limit
    net = build(dtype=dtype, log_A=limit, pi_min=least)
    for f in net.approximations[:2]:
        assert f.domain == (1 / math.exp(limit), 1.0)
    for log_A in (0.0, math.nextafter(limit, math.inf)):
        with pytest.raises(ValueError, match=rf"^log A = {log_A:.1f} does not fit {dtype}, which holds"):
            build(dtype=dtype, log_A=log_A)
    assert build(dtype=dtype, log_A=0.1).range_log == 0.1
    with pytest.raises(ValueError, match=f"^pi_min = .* does not fit {dtype}; at least .* works$"):
        build(dtype=dtype, log_A=limit, pi_min=(1 - 1e-12) * least)


@pytest.mark.parametrize(
    ("r_max", "message"),
    [
        (1e100, "r_max must be positive and below 1e+100, got 1e+100"),
        (3e100, "r_max must be positive and below 1e+100, got 3e+100"),
        (math.inf, "r_max must be positive and finite, got inf"),
        (0.0, "r_max must be positive and finite, got 0"),
    ],
)
def test_a_range_is_below_1e100(r_max, message):
    with pytest.raises(ValueError, match=exactly(message)):
        build(r_max=r_max)


# ---- rounding


def test_eps_may_be_a_hundredth_of_the_rounding_error():
    """2^-53 |mu|^2 = 1/2 for |mu| = 2^26; two digits of it, rounded up, are 0.5."""
    assert build(r_max=2.0**26, eps=0.005).eps == 0.005
    message = (
        "eps = 0.005 is far below the rounding error 0.5 of |mu|^2 in float64 at r_max = 6.71089e+07; "
        "use eps >= 0.5 or a smaller r_max"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        build(r_max=2.0**26, eps=math.nextafter(0.005, 0))


@pytest.mark.parametrize(
    ("floor", "advice"),
    [
        (0.42, "use eps >= 0.42 or smaller means"),
        (0.421, "use eps >= 0.43 or smaller means"),
        (math.nextafter(0.99, 0), "use eps >= 0.99 or smaller means"),
        (0.99, "use smaller means"),
        (3.0, "use smaller means"),
    ],
)
def test_an_eps_from_099_on_is_not_advised(floor, advice):
    message = f"eps = 0.001 is far below the rounding error {floor:.2g} of a sum; {advice}"
    with pytest.raises(ValueError, match=exactly(message)):
        check_rounding(0.001, floor, "a sum", "smaller means")


# ---- memory


def taken(eps):
    return build(2, 2, eps=eps, r_max=4.0).n_bytes()


def named(call):
    """The eps that a refusal says would fit."""
    with pytest.raises(ValueError, match=r"; eps >= \S+ fits$") as caught:
        call()
    return float(str(caught.value).split("eps >= ")[1].split()[0])


def test_matrices_may_take_max_bytes():
    size = taken(0.05)
    assert len(build(2, 2, r_max=4.0, eps=0.05, max_bytes=size).program.body) == 2
    net = build(2, 2, r_max=4.0, eps=0.05, max_bytes=size - 1)
    with pytest.raises(ValueError, match=r"^the matrices take .* GiB, more than max_bytes = .* GiB; "):
        net.program  # noqa: B018


@pytest.mark.parametrize("enough", [0.3, 0.6, 0.99])
def test_the_least_eps_that_takes_max_bytes_is_named(enough):
    """The number of pieces is constant between jumps; the eps that is named is near the lower end of such an
    interval, by the search and by three digits."""
    size = taken(enough)
    fits = named(lambda: build(2, 2, r_max=4.0, eps=0.05, max_bytes=size).program)
    assert taken(fits) == size
    assert fits < enough
    assert taken(fits / 1.011) > size


def test_the_eps_that_fits_is_searched_to_a_thousandth():
    """Halving log(0.99 / eps) five times leaves a ratio of 1.001 here, to the last digit."""
    eps = 0.95883684730547
    high = 0.99
    for _ in range(5):
        assert high > 1.001 * eps
        high = math.sqrt(eps * high)
    assert high == 1.001 * eps
    assert f"{high:.3g}" == "0.96"
    assert named(lambda: check_bytes(eps, 1, lambda tried: 2 if tried <= eps else 1)) == 0.96


# ---- data and starts


def test_the_largest_samples():
    """Squares up to 1e300 are floats; small samples beside them do not hide the large one."""
    start = Estimate(np.ones(1), np.zeros((1, 2)))
    data, _ = as_problem([[0.0, -LARGEST], [0.5, 2.0]], start)
    assert data.tolist() == [[0.0, -1e150], [0.5, 2.0]]
    message = (
        "X reaches 1e+150, more than 1e+150, whose square leaves float64; divide the data by their scale"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        as_problem([[0.0, -math.nextafter(LARGEST, math.inf)], [0.5, 2.0]], start)
    with pytest.raises(ValueError, match=r"^v reaches 7\.75, more than 7\.5, whose square leaves float64; "):
        as_array("v", [0.25, 7.75], 1, largest=7.5)


@pytest.mark.parametrize("least", [0.0, -0.25])
def test_every_scale_of_a_start_is_positive(least):
    def start(value):
        return Estimate(np.array([0.4, 0.6]), np.zeros((2, 2)), np.array([[1.5, 0.7], [value, 2.5]]))

    assert as_problem(np.zeros((3, 2)), start(1e-300))[1].scales.min() == 1e-300
    with pytest.raises(ValueError, match=exactly(f"scales must be positive, got {least:g}")):
        as_problem(np.zeros((3, 2)), start(least))


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_sum_to_one_within_a_millionth(sign):
    def start(off):
        return Estimate(np.array([0.25, 0.75 + sign * off]), np.zeros((2, 1)))

    as_problem([[0.0]], start(0.999e-6))
    with pytest.raises(ValueError, match=r"^weights must sum to 1, got "):
        as_problem([[0.0]], start(1.001e-6))


def test_the_advice_is_within_the_bound_and_short():
    """Rounded to the safe side: no shorter number is nearer on that side."""
    for value in (20.0000049, 6.6e-307, 0.96, 1e-300, 3.0, 999999.5, 0.0123456789):
        for digits in (2, 6):
            above, below = shown_above(value, digits), shown_below(value, digits)
            assert float(below) <= value <= float(above)
            assert float(above) - float(below) <= 1.001 * 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    assert (shown_above(20.0000049, 6), shown_below(20.0000049, 6)) == ("20.0001", "20")
    assert shown_above(math.inf) == "inf"
    assert shown_below(0.0) == "0"


def test_the_advice_of_a_refusal_works():
    far = np.array([[20.0000049], [1.0]])
    start = Estimate(np.array([0.5, 0.5]), far)
    with pytest.raises(ValueError, match=r"build with r_max >= 20\.0001") as refusal:
        EMTransformer(1, 2, eps=0.1, r_max=4, pi_min=0.1).encode(far, start)
    r_max = float(str(refusal.value).split(">= ")[1])
    assert EMTransformer(1, 2, eps=0.1, r_max=r_max, pi_min=0.1).encode(far, start).shape == (2, 15)
    for dtype in ("float64", "float32"):
        with pytest.raises(ValueError, match="at least") as refusal:
            check_log_range(1.0, 1e-309, dtype)
        least = float(str(refusal.value).split("at least ")[1].split(" ")[0])
        check_log_range(1.0, least, dtype)
