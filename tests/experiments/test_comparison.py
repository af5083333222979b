"""What is compared, and what happens to a variant that fails."""

import sys

import numpy as np
import pytest

from experiments.benchmarks import comparison, limits, variants
from experiments.benchmarks.cases import Case, Setting
from experiments.benchmarks.throughput import parse, settings


@pytest.mark.parametrize(
    ("num_runs", "sizes"),
    [(1, [1]), (2, [1]), (4, [1, 2]), (5, [1, 2, 3]), (10, [1, 3, 5])],  # on two devices
)
def test_no_strategy_twice(num_runs, sizes):
    found = variants.strategies(num_runs, ["auto"], ["1", "some", "all"])
    assert [size for size, _, _ in found.values()] == sizes
    assert sorted(word for _, _, words in found.values() for word in words) == ["1", "all", "some"]


def test_every_form_with_every_strategy():
    assert list(variants.strategies(4, ["auto", "lax"], ["1", "all"])) == [
        "ncjax w=1",
        "ncjax w=2",
        "ncjax w=1 lax",
        "ncjax w=2 lax",
    ]


def test_without_pytorch_its_variant_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    setting = Setting("tiny", Case("mlp", (8, 8, 1), 4, 2), 2, "float32", 1)
    assert list(variants.make_builders(setting, ["auto"], ["1"])) == ["naive jit(vmap)", "ncjax w=1"]


def test_a_failing_variant_leaves_its_error_and_the_others_go_on():
    def broken():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")

    builders = {"a": broken, "b": lambda: variants.Variant(broken), "c": lambda: variants.Variant(lambda: None)}
    built, first, errors = comparison.start(builders)
    assert list(built) == list(first) == ["c"]
    assert errors == dict.fromkeys("ab", "RuntimeError: RESOURCE_EXHAUSTED: out of memory")


def test_rows_of_a_tiny_comparison(monkeypatch):
    monkeypatch.setattr(limits, "matmul_rate", lambda dtype: 1e12)
    monkeypatch.setattr(limits, "bandwidth", lambda: 1e10)
    setting = Setting("tiny", Case("mlp", (8, 8, 1), 4, 2), 2, "float32", 1)
    naive, ncjax = comparison.compare(setting, ["auto"], ["1", "all"], skip=("torch",), repeats=2)
    assert (naive["variant"], ncjax["variant"]) == ("naive jit(vmap)", "ncjax w=1")
    assert naive["x_naive"] == 1
    assert ncjax["x_naive_min"] <= ncjax["x_naive"] <= ncjax["x_naive_max"]
    assert ncjax["x_torch"] is ncjax["share_of_bandwidth"] is None
    np.testing.assert_allclose(
        ncjax["share_of_arithmetic"],
        ncjax["rate"] * ncjax["limits"]["flops_per_image"] / ncjax["limits"]["flops_per_second"],
    )
    assert ncjax["planned_bytes"] > 0


def test_settings_of_a_command_line():
    found = settings(parse(["--case=vgg11", "--case=digits", "--runs=1", "--runs=3", "--steps=1"]))
    assert [(s.name, s.runs, s.work) for s in found] == [
        ("vgg11", 1, 64),
        ("vgg11", 3, 3 * 64),
        ("digits", 1, 50),
        ("digits", 3, 150),
    ]
    with pytest.raises(SystemExit):
        parse(["--runs_per_step=half"])
