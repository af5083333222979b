"""What is measured: networks, image sizes, batch sizes, numbers of runs, and the inputs all variants share."""

from dataclasses import dataclass

import jax
import numpy as np

from ncjax import data, models
from ncjax.theory.frames import simplex_etf
from ncjax.training.runs import RunSpec, stacked_frames, stacked_inputs
from ncjax.training.step import Recipe, RunInputs, RunState, Split, make_optimizer, state_shape

MEAN, STD, WEIGHT_DECAY = 5.0, 6.0, 5e-3
NUM_CLASSES = 10
DTYPES = ("float32", "tf32", "bfloat16")  # tf32: float32 arrays, products in TensorFloat-32; GPU only


@dataclass(frozen=True)
class Case:
    """A network with its images; one timed call is an epoch of `steps` steps of every run."""

    model: str
    image_shape: tuple[int, int, int]
    batch_size: int
    runs: int
    steps: int = 8
    gpu_runs: int = 0  # 0: as many as elsewhere


CASES = {
    "digits": Case("resnet8", (8, 8, 1), 50, 10),  # as configs/digits.py
    "digits128": Case("resnet8", (8, 8, 1), 128, 10),
    "resnet20": Case("resnet20", (32, 32, 3), 64, 4),
    "resnet32": Case("resnet32", (32, 32, 3), 128, 4, steps=4, gpu_runs=20),
    "vgg11": Case("vgg11", (32, 32, 3), 64, 2, steps=2),
    "densenet121": Case("densenet121", (32, 32, 3), 32, 2, steps=2),
}


@dataclass(frozen=True)
class Setting:
    """A case with everything that is the same for the variants compared with each other."""

    name: str
    case: Case
    runs: int
    dtype: str
    steps: int

    @property
    def work(self) -> int:
        """Run-images of one call."""
        return self.runs * self.steps * self.case.batch_size


def make_setting(name: str, runs: int = 0, dtype: str = "float32", steps: int = 0) -> Setting:
    """The setting of a named case; 0 stands for the case's own number."""
    case = CASES[name]
    default = case.gpu_runs if case.gpu_runs and jax.default_backend() == "gpu" else case.runs
    return Setting(name, case, runs or default, dtype, steps or case.steps)


def make_split(image_shape: tuple[int, ...], count: int) -> Split:
    """Real digits for 8x8; random pixels elsewhere: the arithmetic does not depend on them."""
    if image_shape == (8, 8, 1):
        digits = data.load("digits", data_dir="", train_per_class=20)
        return Split(digits.test_images[:count], digits.test_labels[:count])
    generator = np.random.default_rng(0)
    return Split(
        generator.integers(0, 256, (count, *image_shape), np.uint8), np.arange(count, dtype=np.int32) % NUM_CLASSES
    )


def setting_split(setting: Setting) -> Split:
    """The images of one epoch."""
    return make_split(setting.case.image_shape, setting.steps * setting.case.batch_size)


def make_recipe(model: str, image_shape, batch_size: int, conv_form: str, dtype: str = "float32", **more) -> Recipe:
    """SGD with momentum 0.9, as the yardstick's."""
    channels = image_shape[-1]
    return Recipe(
        model=models.build(model, conv_form=conv_form, dtype="bfloat16" if dtype == "bfloat16" else "float32"),
        optimizer=make_optimizer("constant", 0.1, 0.9, WEIGHT_DECAY, total_steps=1),
        mean=(MEAN,) * channels,
        std=(STD,) * channels,
        batch_size=batch_size,
        **more,
    )


def setting_recipe(setting: Setting, conv_form: str, **more) -> Recipe:
    """The recipe of a setting."""
    case = setting.case
    return make_recipe(case.model, case.image_shape, case.batch_size, conv_form, setting.dtype, **more)


def make_inputs(model: str, num_runs: int) -> RunInputs:
    """Permutations of one frame, equal seeds."""
    specs = [RunSpec("permutation", f"permutation-{index}", 0, 0, 0) for index in range(num_runs)]
    return stacked_inputs(
        specs, stacked_frames(specs, simplex_etf(NUM_CLASSES, models.feature_dim(model))[None], seed=0)
    )


def host_state(recipe: Recipe, image_shape: tuple[int, ...]) -> RunState:
    """One run before its first step, scales and biases random too; made by NumPy: initialisers compile for long."""
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state_shape(recipe, image_shape))
    generator = np.random.default_rng(1)

    def draw(path, leaf):
        name, drawn = path[-1].key, generator.standard_normal(leaf.shape, np.float32)
        if name != "kernel":
            return 0.1 * drawn + np.float32(name == "scale")
        return drawn * np.float32((2 / np.prod([*leaf.shape[:-2], leaf.shape[-1]])) ** 0.5)

    return state._replace(params=jax.tree_util.tree_map_with_path(draw, state.params))


def host_states(recipe: Recipe, setting: Setting) -> RunState:
    """The same state for every run, stacked."""
    state = host_state(recipe, setting.case.image_shape)
    return jax.tree.map(lambda leaf: np.stack([leaf] * setting.runs), state)


def use_precision(dtype: str) -> None:
    """jax's products of float32 in full precision unless tf32 is asked for; by default it takes tf32 on GPU."""
    jax.config.update("jax_default_matmul_precision", "highest" if dtype == "float32" else None)
