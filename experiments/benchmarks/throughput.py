"""Training throughput of many runs: ncjax against what a user would do without it.

    pip install -e '.[bench]'
    python -m experiments.benchmarks.throughput --case=digits

Yardsticks: PyTorch eager, channels_last, all cores, one model after another; and naive JAX, `jit(vmap(step))` with
`lax` convolutions. All variants work on the same images in interleaved repeats; the unit is run-images per second
(runs x batch x steps / time), forward + backward + SGD, compilation excluded. Medians; ratios are what matters.
"""

import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import torch_resnet
from experiments.benchmarks.timing import interleaved, write_results
from ncjax import data, models
from ncjax.theory.frames import simplex_etf
from ncjax.training import parallel
from ncjax.training.runs import RunSpec, stacked_frames, stacked_inputs
from ncjax.training.step import Recipe, RunInputs, Split, init_state, make_optimizer, train_epoch, train_step

STEPS = 8  # of one epoch, which is one call
CASES = {  # model, depth, image shape, batch size, runs
    "digits": ("resnet8", 8, (8, 8, 1), 50, 10),  # as configs/digits.py
    "digits128": ("resnet8", 8, (8, 8, 1), 128, 10),
    "resnet20": ("resnet20", 20, (32, 32, 3), 64, 4),
}


def make_split(image_shape, batch_size) -> Split:
    """Real digits for 8x8; random pixels elsewhere: the arithmetic does not depend on them."""
    count = STEPS * batch_size
    if image_shape == (8, 8, 1):
        digits = data.load("digits", data_dir="", train_per_class=20)
        return Split(digits.test_images[:count], digits.test_labels[:count])
    generator = np.random.default_rng(0)
    return Split(generator.integers(0, 256, (count, *image_shape), np.uint8), np.arange(count, dtype=np.int32) % 10)


def make_recipe(model: str, image_shape, batch_size: int, conv_form: str) -> Recipe:
    channels = image_shape[-1]
    return Recipe(
        model=models.build(model, conv_form=conv_form),
        optimizer=make_optimizer("constant", 0.1, 0.9, 5e-3, total_steps=1),
        mean=(5.0,) * channels,
        std=(6.0,) * channels,
        batch_size=batch_size,
    )


def torch_variant(depth: int, split: Split, batch_size: int, frames):
    """An epoch of every model, one after another."""
    import torch

    torch.set_num_threads(os.cpu_count())
    steps = [torch_resnet.make_run(depth, split.images.shape[-1], frame, seed=0) for frame in frames]
    images = torch.tensor((split.images.astype(np.float32) - 5) / 6).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.tensor(split.labels.astype(np.int64))

    def epoch():
        for step in steps:
            order = torch.randperm(len(labels)).reshape(-1, batch_size)
            for indices in order:
                step(images[indices].contiguous(memory_format=torch.channels_last), labels[indices])

    return epoch


def naive_variant(model: str, split: Split, batch_size: int, inputs):
    """jit(vmap(step)) with plain convolutions, called once a step."""
    recipe = make_recipe(model, split.images.shape[1:], batch_size, "lax")
    step = jax.jit(jax.vmap(lambda *a: train_step(recipe, *a), in_axes=(0, 0, None)), donate_argnums=0)
    state = jax.jit(jax.vmap(lambda run: init_state(recipe, run, split.images.shape[1:])))(inputs)
    images, labels, frames = (jnp.asarray(array) for array in (split.images, split.labels, inputs.frame))
    orders = np.random.default_rng(0)

    def epoch():
        nonlocal state
        for indices in orders.permutation(len(labels)).reshape(-1, batch_size):
            state = step(state, frames, Split(images[indices], labels[indices]))
        jax.block_until_ready(state)

    return epoch


def ncjax_variant(model: str, split: Split, batch_size: int, inputs, runs_per_step: int):
    """What `ncjax.main` does: an epoch of all runs in one call."""
    recipe = make_recipe(model, split.images.shape[1:], batch_size, "auto")
    num_runs = len(inputs.order_seed)
    layout = parallel.make_layout(num_runs, parallel.make_mesh(num_runs), runs_per_step)
    init = parallel.over_runs(lambda run: init_state(recipe, run, split.images.shape[1:]), layout)
    train = parallel.over_runs(lambda *a: train_epoch(recipe, *a), layout, donate=True)
    placed, shared = parallel.place_runs(inputs, layout), parallel.place_shared(split, layout)
    state = init(placed, (), ())

    def epoch():
        nonlocal state
        state = jax.block_until_ready(train(state, (placed,), (shared,)))

    return epoch


def make_inputs(model: str, num_runs: int) -> RunInputs:
    """Permutations of one frame, equal seeds."""
    specs = [RunSpec("permutation", f"permutation-{index}", 0, 0, 0) for index in range(num_runs)]
    return stacked_inputs(specs, stacked_frames(specs, simplex_etf(10, models.feature_dim(model))[None], seed=0))


def run_case(case: str, repeats: int) -> list[dict]:
    """One row per variant."""
    model, depth, image_shape, batch_size, num_runs = CASES[case]
    split = make_split(image_shape, batch_size)
    inputs = make_inputs(model, num_runs)
    variants = {
        "torch": torch_variant(depth, split, batch_size, inputs.frame),
        "naive jit(vmap)": naive_variant(model, split, batch_size, inputs),
        "ncjax": ncjax_variant(model, split, batch_size, inputs, runs_per_step=0),
    }
    first, seconds = interleaved(variants, repeats)
    work = num_runs * STEPS * batch_size
    rates = {name: [work / value for value in values] for name, values in seconds.items()}
    # ratios within a repeat: the machine's mood is the same for all variants there
    return [
        {
            "case": case,
            "variant": name,
            "runs": num_runs,
            "batch": batch_size,
            "median": float(np.median(values)),
            "min": min(values),
            "max": max(values),
            "x torch": float(np.median(np.divide(values, rates["torch"]))),
            "x naive": float(np.median(np.divide(values, rates["naive jit(vmap)"]))),
            "first call seconds": first[name],
        }
        for name, values in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    parallel.use_all_cores()
    rows = [row for case in arguments.case or CASES for row in run_case(case, arguments.repeats)]
    print(
        f"{'case':9} {'variant':16} {'R':>3} {'B':>4} {'run-images/s (min to max)':>32} {'x torch':>8} {'x naive':>8}"
    )
    for row in rows:
        spread = f"{row['median']:,.0f} ({row['min']:,.0f} to {row['max']:,.0f})"
        print(
            f"{row['case']:9} {row['variant']:16} {row['runs']:3} {row['batch']:4} {spread:>32} "
            f"{row['x torch']:8.2f} {row['x naive']:8.2f}"
        )
    write_results("throughput", repeats=arguments.repeats, rows=rows)


if __name__ == "__main__":
    main()
