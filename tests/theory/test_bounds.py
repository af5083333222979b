"""Bounds against loops over their formulas, closed forms, their traps, and distributions for which they must hold."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ncjax.errors import InputError
from ncjax.theory import bounds, complexity, frames, margins

from .. import reference
from ..strategies import labelled_features

SEEDS = st.integers(0, 2**32 - 1)


def inputs(seed, num_classes=4):
    """Margins in (0.5, 3), Rademacher complexities, counts, and a K above them."""
    generator = np.random.default_rng(seed)
    pairwise = generator.uniform(0.5, 3, (num_classes, num_classes))
    np.fill_diagonal(pairwise, np.nan)
    return pairwise, generator.uniform(0.1, 1, num_classes), generator.integers(5, 50, num_classes), 4.0


def assert_invalid(found, reason):
    assert not found.valid
    assert math.isnan(found.value)
    assert not found.vacuous
    assert reason in found.reason


def assert_value(found, expected):
    assert found.valid, found.reason
    assert found.reason == ""
    assert found.value == pytest.approx(expected, rel=1e-5)


def margin_loop(gamma, rademacher, counts, K, full, delta):
    """Theorem 4.4, term after term, L01 left out."""
    c, total = len(counts), 0.0
    for y in range(c):
        for other in range(c):
            if other != y:
                term = (4 if full else 1) * rademacher[y] / gamma[y, other]
                term += math.sqrt(math.log(math.log2(4 * K / gamma[y, other])) / counts[y])
                if full:
                    term += math.sqrt(math.log(2 * c * (c - 1) / delta) / (2 * counts[y]))
                total += counts[y] / sum(counts) * term
    return total


class TestMarginBound:
    @given(SEEDS, st.sampled_from(["full", "paper"]), st.floats(0.01, 0.5))
    def test_parity_with_the_loop(self, seed, form, delta):
        data = inputs(seed)
        found = bounds.margin_bound(*data, form=form, delta=delta)
        expected = margin_loop(*data, form == "full", delta)
        assert_value(found, expected)
        assert found.bounds == "error"
        assert found.vacuous == (found.value > 1)
        with pytest.raises(AssertionError):  # the comparison sees a planted error of 0.1 %
            assert_value(found, expected * 1.001)

    def test_corollary_for_equal_classes(self):
        """Rad/C sum 1/gamma + 1/sqrt(NC) sum sqrt(log log2(4K/gamma))."""
        gamma = inputs(0)[0]
        off = gamma[~np.isnan(gamma)]
        found = bounds.margin_bound(gamma, np.full(4, 0.3), np.full(4, 25), 4.0, form="paper")
        log_log = np.sqrt(np.log(np.log2(16 / off))).sum()
        assert_value(found, 0.3 / 4 * (1 / off).sum() + log_log / math.sqrt(100 * 4))

    @given(labelled_features())
    def test_at_the_smallest_margin_one_sample_counts(self, data):
        features, labels, frame = (np.asarray(x, np.float32) if x.dtype == float else x for x in data)
        num_classes = frame.shape[1]
        gaps = (features @ frame)[np.arange(len(labels)), labels][:, None] - features @ frame
        gaps -= gaps.min() - 1  # separate the data, whatever it is
        gamma = np.array([gaps[labels == c].min(axis=0) for c in range(num_classes)])
        counts = np.bincount(labels, minlength=num_classes)

        def loss01(at):
            return np.array([(gaps[labels == c] <= at[c]).mean(axis=0) for c in range(num_classes)])

        assert np.all(loss01(gamma) >= 1 / counts[:, None])
        assert np.all(loss01(gamma * bounds.JUST_BELOW) == 0)
        K = 2 * float(gamma.max())
        default = bounds.margin_bound(gamma, np.ones(num_classes), counts, K)
        at = bounds.margin_bound(gamma, np.ones(num_classes), counts, K, loss01=loss01(gamma))
        assert default.terms["loss01"] == 0
        assert at.terms["loss01"] >= num_classes * (num_classes - 1) / len(labels) * (1 - 1e-6)
        assert at.value == pytest.approx(default.value + at.terms["loss01"], rel=1e-5)

    def test_negative_margins_need_a_positive_one_chosen_beforehand(self):
        gamma, rademacher, counts, K = inputs(0)
        gamma[1, 2] = -0.5
        found = bounds.margin_bound(gamma, rademacher, counts, K)
        assert_invalid(found, "1 of 12 pairs have a margin of 0 or below (-0.5)")
        assert found.terms["min_margin"] == -0.5  # shown, not clipped
        gamma[1, 2] = 0
        assert_invalid(bounds.margin_bound(gamma, rademacher, counts, K), "0 or below")
        loss01 = np.zeros((4, 4))
        loss01[1, 2] = 0.1
        chosen = bounds.margin_bound(np.ones((4, 4)), rademacher, counts, K, loss01=loss01)
        assert_value(chosen, margin_loop(np.ones((4, 4)), *inputs(0)[1:], True, 0.05) + 0.1 * counts[1] / counts.sum())

    def test_k_must_be_above_half_of_the_margin(self):
        gamma, rademacher, counts = np.ones((3, 3)), np.ones(3), np.full(3, 9)
        assert_invalid(bounds.margin_bound(gamma, rademacher, counts, 0.4999), "4K/gamma must be above 2")
        assert_invalid(bounds.margin_bound(gamma, rademacher, counts, 0.5, loss01=gamma), "4K/gamma")
        assert_invalid(bounds.margin_bound(gamma, rademacher, counts, math.nan), "4K/gamma")
        assert_invalid(bounds.margin_bound(gamma, rademacher, counts, 0.0), "4K/gamma")
        found = bounds.margin_bound(gamma, rademacher, counts, 0.6)
        assert found.valid
        assert found.terms["margin_over_k"] > 1  # and yet K is no supremum

    @given(labelled_features())
    def test_the_plug_in_k_is_never_too_small(self, data):
        features, _, frame = data
        K = bounds.plug_in_k(frame, np.linalg.norm(features, axis=1).max())
        logits = features @ frame
        assert np.abs(logits[:, :, None] - logits[:, None, :]).max() <= K * (1 + 1e-9)

    def test_the_plug_in_k_of_a_simplex_etf(self):
        frame = frames.simplex_etf(5, 8, scale=1.5)
        assert bounds.plug_in_k(frame, 2.0) == pytest.approx(1.5 * math.sqrt(2 * 5 / 4) * 2)

    @given(SEEDS, st.floats(1.1, 3))
    def test_monotone(self, seed, factor):
        gamma, rademacher, counts, K = inputs(seed)
        K *= 3
        for form in ("full", "paper"):
            value = bounds.margin_bound(gamma, rademacher, counts, K, form=form).value
            assert bounds.margin_bound(gamma * factor, rademacher, counts, K, form=form).value < value
            assert bounds.margin_bound(gamma, rademacher, counts * factor, K, form=form).value < value
            assert bounds.margin_bound(gamma, rademacher * factor, counts, K, form=form).value > value
            assert bounds.margin_bound(gamma, rademacher, counts, K * factor, form=form).value > value
        full = bounds.margin_bound(gamma, rademacher, counts, K, delta=0.1).value
        assert bounds.margin_bound(gamma, rademacher, counts, K, delta=0.1 / factor).value > full

    def test_absent_classes_are_left_out(self):
        gamma, rademacher, counts, K = inputs(0)
        smaller = bounds.margin_bound(gamma[:3, :3], rademacher[:3], counts[:3], K)
        counts, rademacher = counts.astype(float), rademacher.copy()
        counts[3], rademacher[3] = 0, np.nan
        gamma[3] = np.nan
        with_column = bounds.margin_bound(gamma, rademacher, counts, K)
        assert with_column.valid
        assert with_column.value > smaller.value  # the classifier can still answer with the absent class
        without = bounds.margin_bound(margins.two_sided(gamma), rademacher, counts, K)
        two_sided = bounds.margin_bound(margins.two_sided(gamma[:3, :3]), rademacher[:3], counts[:3], K)
        assert without.value == pytest.approx(two_sided.value)
        assert_invalid(
            bounds.margin_bound(np.full((4, 4), np.nan), rademacher, counts * 0, K), "fewer than two classes"
        )
        assert_invalid(bounds.margin_bound(np.full((4, 4), np.nan), rademacher, counts, K), "not finite")
        assert_invalid(bounds.margin_bound(gamma, np.full(4, np.nan), counts, K), "not finite")


class TestMohriBound:
    MARGINS = np.array([0.5, 1.0, 2.0, 4.0, 8.0])

    @pytest.mark.parametrize(("fixed", "empirical"), [(True, False), (True, True), (False, False), (False, True)])
    def test_all_four_versions(self, fixed, empirical):
        found = bounds.mohri_bound(
            self.MARGINS, 0.01, 3, 10.0, gamma=2.0, gamma_fixed=fixed, empirical_rademacher=empirical, delta=0.1
        )
        complexity_term = (4 if fixed else 8) * 3 * 0.01 / 2
        log_log = 0 if fixed else math.sqrt(math.log(math.log2(2 * 10 / 2)) / 5)
        events = {(True, False): 1, (True, True): 2, (False, False): 2, (False, True): 4}[fixed, empirical]
        confidence = (3 if empirical else 1) * math.sqrt(math.log(events / 0.1) / 10)
        expected = 3 / 5 + complexity_term + log_log + confidence  # margins equal to gamma count
        assert_value(found, expected)
        with pytest.raises(AssertionError):
            assert_value(found, expected - 1 / 5)

    def test_by_default_just_below_the_smallest_margin(self):
        found = bounds.mohri_bound(self.MARGINS, 0.01, 3, 10.0)
        assert found.terms["loss01"] == 0
        assert found.terms["gamma"] == pytest.approx(0.5, rel=1e-5)
        at = bounds.mohri_bound(self.MARGINS, 0.01, 3, 10.0, gamma=0.5)
        assert at.value == pytest.approx(found.value + 1 / 5, rel=1e-5)

    def test_negative_margins(self):
        found = bounds.mohri_bound(self.MARGINS - 1, 0.01, 3, 10.0)
        assert_invalid(found, "choose a positive gamma")
        assert found.terms["min_margin"] == -0.5
        chosen = bounds.mohri_bound(self.MARGINS - 1, 0.01, 3, 10.0, gamma=1.0)
        assert chosen.valid
        assert chosen.terms["loss01"] == 3 / 5
        assert_invalid(bounds.mohri_bound(self.MARGINS, 0.01, 3, 10.0, gamma=-1.0, gamma_fixed=True), "not above 0")

    def test_a_chosen_margin_must_not_exceed_k(self):
        assert_invalid(bounds.mohri_bound(self.MARGINS, 0.01, 3, 1.0, gamma=1.01), "must not exceed K")
        assert bounds.mohri_bound(self.MARGINS, 0.01, 3, 1.0, gamma=1.0).valid
        assert bounds.mohri_bound(self.MARGINS, 0.01, 3, 1.0, gamma=1.01, gamma_fixed=True).valid

    def test_no_or_broken_samples(self):
        for broken in (np.zeros(0), np.array([1.0, np.nan])):
            assert_invalid(bounds.mohri_bound(broken, 0.01, 3, 10.0), "not finite")
        assert_invalid(bounds.mohri_bound(self.MARGINS, math.nan, 3, 10.0), "not finite")

    @given(st.floats(1.1, 1.9))
    def test_monotone(self, factor):
        separated = np.full(50, 2.0)
        value = bounds.mohri_bound(separated, 0.1, 3, 10.0).value
        assert bounds.mohri_bound(separated * factor, 0.1, 3, 10.0).value < value
        assert bounds.mohri_bound(np.full(int(50 * factor), 2.0), 0.1, 3, 10.0).value < value
        assert bounds.mohri_bound(separated, 0.1 * factor, 3, 10.0).value > value
        assert bounds.mohri_bound(separated, 0.1, 3, 10.0, delta=0.05 / factor).value > value
        assert bounds.mohri_bound(separated, 0.1, 3, 10.0, gamma_fixed=True, gamma=1.9).value < value

    @pytest.mark.parametrize("num_classes", [3, 10, 100])
    def test_much_tighter_in_the_number_of_classes(self, num_classes):
        """At collapse on a unit ETF: complexity terms in the ratio sqrt((C-1)/2), confidence (C-1) sqrt(C) and more."""
        samples, s = 100 * num_classes, 8.0
        margin = s * num_classes / (num_classes - 1)
        K = bounds.plug_in_k(frames.simplex_etf(num_classes, num_classes), s)
        ball = math.sqrt(2 * num_classes / (num_classes - 1))
        of_class = float(complexity.rademacher_radius_bound(s, 100, ball))
        of_all = float(complexity.rademacher_radius_bound(s, samples))
        gamma, counts = np.full((num_classes, num_classes), margin), np.full(num_classes, 100)
        paper = bounds.margin_bound(gamma, np.full(num_classes, of_class), counts, K)
        mohri = bounds.mohri_bound(np.full(samples, margin), of_all, num_classes, K, empirical_rademacher=False)
        ratio = paper.terms["complexity"] / mohri.terms["complexity"]
        assert ratio == pytest.approx(math.sqrt((num_classes - 1) / 2), rel=1e-5)
        confidence = paper.terms["confidence"] / mohri.terms["confidence"]
        assert confidence >= (num_classes - 1) * math.sqrt(num_classes)


def clouds(seed, num_classes=3, per_class=20, spread=0.05):
    """Inputs in clusters around 0..C-1 times 3 in the plane; covering curves by class."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    points = 3 * labels[:, None] + spread * generator.standard_normal((len(labels), 2))
    return points, labels, [complexity.covering_curve(points[labels == c]) for c in range(num_classes)]


class TestCoveringBound:
    FRAME = frames.simplex_etf(3, 4)  # ||M_y - M_y'|| = sqrt 3
    COUNTS = np.full(3, 20)

    @given(SEEDS, st.sampled_from(["paper", "safe"]))
    def test_parity_with_the_loop(self, seed, form):
        _, _, curves = clouds(seed)
        gamma, frame = inputs(seed, 3)[0], np.random.default_rng(seed).standard_normal((4, 3))
        lipschitz, total, shares = 20.0, 0, []
        for y in range(3):
            distances = {other: np.linalg.norm(frame[:, y] - frame[:, other]) for other in range(3) if other != y}
            radii = [gamma[y, other] / (lipschitz * distances[other]) for other in distances]
            halved = 1 if form == "paper" else 2
            # the maximum over y' as printed
            m = max(complexity.covering_number_from_curve(curves[y], radius / halved) for radius in radii)
            total, shares = total + m, [*shares, m / 20]
        found = bounds.covering_bound(gamma, frame, lipschitz, curves, self.COUNTS, form=form)
        assert found.terms["formula"] == pytest.approx(1 - total / 120)
        assert found.valid == (max(shares) < 0.9)
        assert found.value == found.terms["formula"] or not found.valid
        assert found.bounds == "accuracy"
        assert found.terms["saturation_max"] == max(shares)
        assert found.terms["saturation_mean"] == pytest.approx(np.mean(shares))
        assert found.terms["formula"] != pytest.approx(1 - (total + 1) / 120)  # one ball too many is seen

    def test_saturation_gives_one_half_whatever_the_data(self):
        for seed, per_class in ((0, 20), (1, 7)):
            curves = clouds(seed, per_class=per_class)[2]
            counts = np.full(3, per_class)
            found = bounds.covering_bound(np.ones((3, 3)), self.FRAME, 1e6, curves, counts)
            assert_invalid(found, "saturated")
            assert found.terms["formula"] == 0.5
            assert found.terms["saturation_max"] == found.terms["saturation_mean"] == 1

    def test_one_ball_for_each_class_is_the_best(self):
        found = bounds.covering_bound(np.ones((3, 3)), self.FRAME, 0.01, clouds(0)[2], self.COUNTS)
        assert_value(found, 1 - 3 / 120)

    @given(SEEDS, st.floats(1.0, 4.0))
    def test_monotone(self, seed, factor):
        curves, gamma = clouds(seed)[2], inputs(seed, 3)[0]

        def value(gamma, lipschitz, form="paper"):
            found = bounds.covering_bound(gamma, self.FRAME, lipschitz, curves, self.COUNTS, form=form)
            return found.terms["formula"]

        assert value(gamma * factor, 10.0) >= value(gamma, 10.0) >= value(gamma, 10.0 * factor)
        assert value(gamma, 10.0, "safe") <= value(gamma, 10.0)
        assert value(gamma, 10.0, "safe") == value(gamma / 2, 10.0)

    def test_outside_the_assumptions(self):
        curves, gamma = clouds(0)[2], np.ones((3, 3))
        negative = gamma - 2 * np.eye(3)[[1, 2, 0]]
        assert_invalid(bounds.covering_bound(negative, self.FRAME, 1.0, curves, self.COUNTS), "0 or below")
        assert_invalid(bounds.covering_bound(gamma * 0, self.FRAME, 1.0, curves, self.COUNTS), "0 or below")
        for lipschitz in (0.0, -1.0, math.nan, math.inf):
            assert_invalid(bounds.covering_bound(gamma, self.FRAME, lipschitz, curves, self.COUNTS), "Lipschitz")
        unbalanced = bounds.covering_bound(gamma, self.FRAME, 0.01, curves, np.array([20, 20, 19]))
        assert_invalid(unbalanced, "unbalanced (19 to 20")
        assert unbalanced.terms["formula"] == pytest.approx(1 - 3 / (2 * 59))

    def test_absent_classes_are_left_out(self):
        gamma, curves, frame = np.ones((4, 4)), [*clouds(0)[2], np.zeros(0)], frames.simplex_etf(4, 4)
        gamma[3] = np.nan
        assert_value(bounds.covering_bound(gamma, frame, 0.01, curves, np.array([20, 20, 20, 0])), 1 - 3 / 120)
        nothing = bounds.covering_bound(np.full((4, 4), np.nan), frame, 0.01, curves, np.zeros(4))
        assert_invalid(nothing, "fewer than two classes")


def hoeffding_loop(gamma, frame, rho, dim, num_samples):
    def h(a, y):
        return math.exp(-n * a**2 / (8 * dim**2 * rho[y] ** 2))

    c, total = len(rho), 0.0
    n = num_samples / c
    for y in range(c):
        others = [other for other in range(c) if other != y]
        smallest = min(gamma[y, other] / np.linalg.norm(frame[:, y] - frame[:, other]) for other in others)
        total += h(1, y) + h(smallest - math.sqrt(n), y)
    return 1 - 2 * dim / c * total


class TestHoeffdingBound:
    @given(SEEDS)
    def test_parity_with_the_loop(self, seed):
        generator = np.random.default_rng(seed)
        frame, rho = generator.standard_normal((4, 3)), generator.uniform(1, 3, 3)
        gamma = 100 * inputs(seed, 3)[0]
        found = bounds.hoeffding_bound(gamma, frame, rho, num_samples=12)
        expected = hoeffding_loop(gamma, frame, rho, 4, 12)
        assert_value(found, expected)
        assert found.value == pytest.approx(1 - found.terms["first"] - found.terms["second"])
        assert found.vacuous == (expected < 0)
        with pytest.raises(AssertionError):
            assert_value(found, expected * 1.001)
        assert bounds.hoeffding_bound(gamma, frame, rho, num_samples=12, dim=4) == found

    def test_a_negative_argument_is_invalid_and_not_small(self):
        """H is even: far below 0 its value is as small as far above."""
        frame, rho = frames.simplex_etf(2, 1), np.full(2, 0.1)
        gamma = np.full((2, 2), 2.0)  # geometric margin 1
        found = bounds.hoeffding_bound(gamma, frame, rho, num_samples=2 * 400)
        assert found.terms["formula"] == pytest.approx(1)  # what it would have claimed
        assert found.terms["argument_min"] == pytest.approx(1 - 20)
        assert_invalid(found, "H has a negative argument")
        assert bounds.hoeffding_bound(gamma, frame, rho, num_samples=2).valid  # sqrt n = 1: argument 0

    @given(SEEDS, st.floats(0.0, 0.2))
    def test_never_both_valid_and_informative(self, seed, spread):
        """With the true largest norms, whatever N is said to be."""
        features, labels, frame = separated_features(seed, spread=spread)
        gamma = reference.pairwise_margins(features, labels, frame)
        rho = np.array([np.linalg.norm(features[labels == c], axis=1).max() for c in range(4)])
        for num_samples in (1e-3, 1, 4, 10, 1e3, 1e6):
            found = bounds.hoeffding_bound(gamma, frame, rho, num_samples=num_samples)
            assert found.terms["margin_over_rho"] <= 1 + 1e-9
            assert found.vacuous or not found.valid

    def test_admissible_sample_sizes(self):
        frame, rho, gamma = frames.simplex_etf(2, 1), np.array([0.2, 0.3]), np.array([[0, 9.0], [8.0, 0]])

        def terms(n):
            return bounds.hoeffding_bound(gamma, frame, rho, num_samples=2 * n).terms

        low, high, needed = (terms(1)[name] for name in ("n_low_second", "n_high_second", "n_needed_first"))
        assert needed == pytest.approx(8 * 0.3**2 * math.log(2))

        def worst(n):
            """Largest of 2d H over the classes, for both arguments."""
            first = [2 * math.exp(-n / (8 * r**2)) for r in rho]
            arguments = np.array([9, 8]) / 2 - math.sqrt(n)
            return max(first), np.max(2 * np.exp(-n * arguments**2 / (8 * rho**2)))

        for bound, side in ((low, 1), (high, 0)):
            assert worst(bound * 1.001)[1] < 1 if side else worst(bound * 1.001)[1] > 1
            assert worst(bound * 0.999)[1] > 1 if side else worst(bound * 0.999)[1] < 1
        assert worst(needed * 0.999)[0] > 1 > worst(needed * 1.001)[0]
        none = bounds.hoeffding_bound(gamma / 100, frame, rho, num_samples=2).terms
        assert math.isnan(none["n_low_second"])
        assert math.isnan(none["n_high_second"])

    def test_outside_the_assumptions_and_absent_classes(self):
        frame, gamma = frames.simplex_etf(3, 3), np.full((3, 3), 9.0)
        assert_invalid(bounds.hoeffding_bound(-gamma, frame, np.ones(3), num_samples=3), "0 or below")
        for rho in (0.0, -1.0, math.nan, math.inf):
            assert_invalid(bounds.hoeffding_bound(gamma, frame, np.full(3, rho), num_samples=3), "largest norm")
        nothing = bounds.hoeffding_bound(np.full((3, 3), np.nan), frame, np.ones(3), num_samples=0)
        assert_invalid(nothing, "fewer than two classes")
        gamma[2] = np.nan
        found = bounds.hoeffding_bound(gamma, frame, np.array([1, 1, 0]), num_samples=2)
        assert_value(found, hoeffding_loop(gamma[:2, :2], frame[:, :2], [1, 1], 3, 2))


def separated_features(seed, num_classes=4, per_class=30, spread=0.5):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    frame = frames.simplex_etf(num_classes, 6)
    return 2 * frame.T[labels] + spread * generator.standard_normal((len(labels), 6)), labels, frame


def moments(features, labels, frame):
    gaps = (features @ frame)[np.arange(len(labels)), labels][:, None] - features @ frame
    classes = range(frame.shape[1])
    return tuple(np.array([f(gaps[labels == c], axis=0) for c in classes]) for f in (np.mean, np.var)), gaps


class TestCantelliBound:
    def test_closed_form(self):
        m, v = np.array([[0, 2.0], [1.0, 0]]), np.array([[0, 1.0], [3.0, 0]])
        expected = 0.25 * 1 / (1 + 4) + 0.75 * 3 / (3 + 1)
        found = bounds.cantelli_bound(m, v, np.array([0.25, 0.75]))
        assert_value(found, expected)
        assert found.terms == {"min_mean": 1.0, "worst_pair": 0.75, "prior_share": 1.0}
        assert bounds.cantelli_bound(m, v, np.array([5, 15])) == found  # priors may be counts
        with pytest.raises(AssertionError):
            assert_value(found, 0.75 * 1 / (1 + 4) + 0.25 * 3 / (3 + 1))
        assert_value(bounds.cantelli_bound(m, 0 * v, np.array([0.5, 0.5])), 0)  # exact collapse

    @given(SEEDS, st.floats(0.1, 2.0))
    def test_holds_for_the_distribution_whose_moments_it_is_given(self, seed, spread):
        """The sample itself is a distribution: its own error, ties and all, is below."""
        features, labels, frame = separated_features(seed, spread=spread)
        (mean, variance), gaps = moments(features, labels, frame)
        found = bounds.cantelli_bound(mean, variance, np.full(4, 0.25))
        assume(found.valid)
        wrong = np.where(np.arange(4) == labels[:, None], np.inf, gaps).min(axis=1) <= 0
        assert wrong.mean() <= found.value

    def test_a_negative_mean_is_invalid_and_not_safe(self):
        m, v = np.full((3, 3), 5.0), np.full((3, 3), 0.1)
        m[0, 1] = -5  # the formula is even in m: this pair is surely wrong and looks as safe as the others
        found = bounds.cantelli_bound(m, v, np.full(3, 1 / 3))
        assert_invalid(found, "mean margin of 0 or below")
        assert found.terms["worst_pair"] < 0.01
        m[0, 1] = 0
        assert_invalid(bounds.cantelli_bound(m, v, np.full(3, 1 / 3)), "0 or below")
        assert_invalid(bounds.cantelli_bound(np.abs(m) + 1, -v, np.full(3, 1 / 3)), "variance")
        assert_invalid(bounds.cantelli_bound(np.abs(m) + 1, v * np.nan, np.full(3, 1 / 3)), "variance")

    def test_absent_classes_are_left_out(self):
        generator = np.random.default_rng(0)
        m, v = generator.uniform(1, 2, (3, 3)), generator.uniform(1, 2, (3, 3))
        m_absent, v_absent = np.full((4, 4), np.nan), np.full((4, 4), np.nan)
        m_absent[:3, :3], v_absent[:3, :3] = m, v
        expected = bounds.cantelli_bound(m, v, np.full(3, 1 / 3)).value
        for priors, share in (([1, 1, 1, 0], 1), ([1, 1, 1, 1], 0.75)):  # known to be absent, or only no statistics
            found = bounds.cantelli_bound(m_absent, v_absent, np.array(priors))
            assert found.value == pytest.approx(expected)
            assert found.terms["prior_share"] == share
        m_absent[3], v_absent[3] = 0, 0  # as `ClassStats` has an absent class
        assert bounds.cantelli_bound(m_absent, v_absent, np.array([1, 1, 1, 0])).value == pytest.approx(expected)
        nothing = bounds.cantelli_bound(np.full((4, 4), np.nan), v_absent, np.zeros(4))
        assert_invalid(nothing, "fewer than two classes")


class TestCdnvBound:
    def test_values(self):
        found = bounds.cdnv_bound(0.01, 5)
        assert_value(found, 4 * 4 * 0.01)
        assert found.terms["cantelli"] == pytest.approx(4 * 0.04 / 1.04)
        assert found.terms["galanti"] == pytest.approx(16 * 4 * 0.01)
        assert found.terms["cantelli"] < found.value < found.terms["galanti"]
        assert bounds.cdnv_bound(0.0, 5).value == 0  # exact collapse
        assert bounds.cdnv_bound(0.1, 5).vacuous
        assert not found.vacuous

    @given(SEEDS, st.floats(0.05, 2.0))
    def test_holds_for_the_nearest_mean_rule(self, seed, spread):
        features, labels, _ = separated_features(seed, spread=spread)
        mu = reference.means(features, labels, 4)
        distance = np.linalg.norm(features[:, None] - mu, axis=2)
        own = distance[np.arange(len(labels)), labels]
        wrong = np.where(np.arange(4) == labels[:, None], np.inf, distance).min(axis=1) <= own
        found = bounds.cdnv_bound(reference.cdnv(features, labels, 4), 4)
        assert wrong.mean() <= found.terms["cantelli"] <= found.value

    def test_what_is_no_cdnv(self):
        for cdnv, num_classes in ((-0.1, 3), (math.nan, 3), (math.inf, 3), (0.1, 1)):
            assert_invalid(bounds.cdnv_bound(cdnv, num_classes), "is no CDNV")


def test_arrays_from_anywhere():
    gamma, rademacher, counts, K = inputs(0)
    expected = bounds.margin_bound(gamma, rademacher, counts, K).value
    for convert in (jnp.asarray, lambda x: np.asarray(x, np.float32)):
        found = bounds.margin_bound(convert(gamma), convert(rademacher), convert(counts), K)
        assert found.value == pytest.approx(expected, rel=1e-5)
        assert type(found.value) is float
        assert {type(term) for term in found.terms.values()} == {float}


def test_every_bound_says_what_it_rests_on_and_keeps_its_terms():
    gamma, curves, frame = np.ones((3, 3)), clouds(0)[2], frames.simplex_etf(3, 3)

    def found(sign):
        return (
            bounds.margin_bound(sign * gamma, np.ones(3), np.full(3, 20), 2.0),
            bounds.mohri_bound(np.full(9, sign), 0.1, 3, 2.0),
            bounds.covering_bound(sign * gamma, frame, 0.01, curves, np.full(3, 20)),
            bounds.hoeffding_bound(sign * gamma, frame, np.ones(3), num_samples=1),
            bounds.cantelli_bound(sign * gamma, gamma, np.ones(3)),
            bounds.cdnv_bound(sign * 0.1, 3),
        )

    for valid, invalid in zip(found(1.0), found(-1.0), strict=True):
        assert valid.valid
        assert not invalid.valid
        assert valid.assumptions
        assert valid.terms.keys() == invalid.terms.keys()
        assert valid.bounds == invalid.bounds


def test_options_that_do_not_exist():
    gamma, rademacher, counts, K = inputs(0)
    with pytest.raises(InputError, match="'full' or 'paper'"):
        bounds.margin_bound(gamma, rademacher, counts, K, form="best")
    with pytest.raises(InputError, match="delta"):
        bounds.margin_bound(gamma, rademacher, counts, K, delta=1.0)
    with pytest.raises(InputError, match="delta"):
        bounds.mohri_bound(np.ones(3), 0.1, 3, 2.0, delta=0.0)
    with pytest.raises(InputError, match="gamma_fixed needs"):
        bounds.mohri_bound(np.ones(3), 0.1, 3, 2.0, gamma_fixed=True)
    with pytest.raises(InputError, match="'paper' or 'safe'"):
        bounds.covering_bound(gamma, np.eye(4), 1.0, [], counts, form="full")
    with pytest.raises(InputError, match="as many covering curves"):
        bounds.covering_bound(gamma, np.eye(4), 1.0, [], counts)
