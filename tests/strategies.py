"""Hypothesis strategies: features of few shapes, so that little is compiled."""

import numpy as np
from hypothesis import strategies as st

SHAPES = [(12, 3, 5), (40, 4, 6), (30, 2, 3), (60, 5, 4)]  # samples, classes, dimension


@st.composite
def labelled_features(draw):
    """(features (N, D), labels (N,), frame (D, C)) in float64; every class is present, classes are imbalanced."""
    samples, num_classes, dim = draw(st.sampled_from(SHAPES))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.concatenate([np.arange(num_classes), generator.integers(0, num_classes, samples - num_classes)])
    labels = generator.permutation(labels).astype(np.int32)
    offset, spread = draw(st.sampled_from([0.0, 3.0])), draw(st.sampled_from([0.1, 1.0]))
    features = offset + 2 * generator.standard_normal((num_classes, dim))[labels]
    features = features + spread * generator.standard_normal((samples, dim))
    return features, labels, generator.standard_normal((dim, num_classes))
