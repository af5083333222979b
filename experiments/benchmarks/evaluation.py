"""Cost of evaluation: the full sweep against a bare forward pass, and metrics of given features.

    python -m experiments.benchmarks.evaluation [--large]

`sweep` streams statistics, margins, Rademacher sums and predictions through one network pass and then computes every
metric, margin and bound on the host; the bare pass only computes the features and keeps their sum. Interleaved repeats,
medians. `--large` adds one run of N = 100,000, C = 1000, D = 2048 and reports the peak memory of this process.
"""

import argparse
import resource

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.cases import make_inputs, make_recipe
from experiments.benchmarks.timing import interleaved, write_results
from ncjax import data
from ncjax.theory.frames import simplex_etf
from ncjax.training import parallel
from ncjax.training.evaluate import BATCH_SIZE, Sweep, sweep, sweep_features
from ncjax.training.measure import measure
from ncjax.training.step import Split, features, init_state


def sweep_against_forward(repeats: int, num_runs: int = 10) -> dict:
    """Digits test images through ResNet-8, all runs."""
    digits = data.load("digits", train_per_class=20)
    split, shape = Split(digits.test_images, digits.test_labels), digits.test_images.shape[1:]
    recipe = make_recipe("resnet8", shape, 50, "auto")
    inputs = make_inputs("resnet8", num_runs)
    layout = parallel.make_layout(num_runs, parallel.make_mesh(num_runs), 0)
    placed, shared = parallel.place_runs(inputs, layout), parallel.place_shared(split, layout)
    state = parallel.over_runs(lambda run: init_state(recipe, run, shape), layout)(placed, (), ())

    def forward(state, run, split):
        images = jnp.resize(split.images, (8, BATCH_SIZE, *shape))  # the sweep pads 1,597 images to as many
        found = jax.lax.map(lambda batch: features(recipe, state.params, state.batch_stats, batch, False)[0], images)
        return found.sum()

    def swept(state, run, split):
        return sweep(recipe, state, run.frame, split, keep_features=True)

    bare, full = (parallel.over_runs(function, layout) for function in (forward, swept))

    def measured():
        stacked = parallel.fetch_runs(full(state, (placed,), (shared,)), num_runs)
        for run in range(num_runs):
            measure(jax.tree.map(lambda leaf, run=run: leaf[run], stacked), digits.test_labels, inputs.frame[run])

    calls = {
        "bare forward pass": lambda: jax.block_until_ready(bare(state, (placed,), (shared,))),
        "sweep": lambda: jax.block_until_ready(full(state, (placed,), (shared,))),
        "sweep and every metric": measured,
    }
    _, found = interleaved(calls, repeats)
    base = found["bare forward pass"]
    ratios = {name: float(np.median(np.divide(values, base))) for name, values in found.items()}
    return {name: {"seconds": float(np.median(values)), "ratio": ratios[name]} for name, values in found.items()}


def given_features(repeats: int, num_runs: int, count: int, num_classes: int, dim: int) -> dict:
    """Core metrics and margins of features that are already there."""
    generator = np.random.default_rng(0)
    frame = np.asarray(simplex_etf(num_classes, dim), np.float32)
    labels = (np.arange(count) % num_classes).astype(np.int32)
    shape = num_runs, count, dim
    given = generator.standard_normal(shape, np.float32) + 5 * frame.T[labels]

    def call():
        for run in range(num_runs):
            found: Sweep = jax.device_get(sweep_features(given[run], labels, frame))
            measure(found, labels, frame)

    _, found = interleaved({"given": call}, repeats)
    return {"seconds": float(np.median(found["given"]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    parallel.use_all_cores()
    rows = {f"digits, 10 runs: {name}": row for name, row in sweep_against_forward(arguments.repeats).items()}
    rows["features R=10 N=50,000 C=10 D=64"] = given_features(arguments.repeats, 10, 50_000, 10, 64)
    if arguments.large:
        rows["features R=1 N=100,000 C=1000 D=2048"] = given_features(1, 1, 100_000, 1000, 2048)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for name, row in rows.items():
        ratio = f"{row['ratio']:6.2f} x the bare pass" if "ratio" in row else ""
        print(f"{name:48} {row['seconds']:9.3f} s {ratio}")
    print(f"peak memory of the process {peak:.1f} GiB")
    write_results("evaluation", repeats=arguments.repeats, peak_gib=peak, rows=rows)


if __name__ == "__main__":
    main()
