"""Every setting: its default, its meaning, and every check of what a user may write.

A config file starts from `default_config()`, changes what it needs and returns it; `validate` turns the result into
frozen settings or raises one `InputError`. Everywhere, 0 in a count that says so means "choose automatically".
"""

import math

from ml_collections import ConfigDict, FrozenConfigDict

from ncjax.errors import InputError

CHOICES = {
    "model.name": ("resnet32", "vgg11", "densenet121", "resnet8", "resnet18", "resnet20", "convnet", "mlp"),
    "model.features": ("relu", "batch_norm", "linear"),
    "dtype": ("float32", "bfloat16"),
    "loss": ("cross_entropy", "mse", "dot_regression"),
    "augment": ("none", "crop_flip"),
    "frame.kind": ("simplex_etf", "ufm_ce", "packing", "file"),
    "optimizer.schedule": ("constant", "step", "cosine"),
    "on_divergence": ("record", "stop"),
}
POSITIVE = ("epochs", "batch_size", "frame.scale", "optimizer.learning_rate", "converged.loss", "runs.cross_seeds")
NOT_NEGATIVE = (
    "seed",
    "runs_per_step",
    "runs_per_wave",
    "memory_gib",
    "checkpoint_epochs",
    "dataset.train_per_class",
    "runs.permutations",
    "runs.rotations",
    "runs.seeds",
    "runs.repeats",
    "runs.jitters",
    "optimizer.weight_decay",
    "evaluate_epochs.dense",
    "evaluate_epochs.log_spaced",
    "mesh.runs",
    "mesh.data",
)
# What may differ between two starts of one workdir: where and how the work is placed, never what is computed.
PLACEMENT = ("runs_per_step", "runs_per_wave", "memory_gib", "mesh.runs", "mesh.data", "dataset.data_dir")


def default_config() -> ConfigDict:
    """All settings at their defaults; a config file overrides some of them."""
    config = ConfigDict()
    config.seed = 0  # base seed of every run; the `seed` family adds 1, 2, ...
    config.dtype = "float32"  # of the convolutions; parameters, BatchNorm and features stay float32
    config.loss = "cross_entropy"
    config.epochs = 200
    config.batch_size = 128
    config.augment = "none"
    config.normalize_features = False  # unit features with a unit ETF cannot reach zero loss
    config.deterministic = True  # deterministic operations on GPU; CPU and TPU always are
    config.on_divergence = "record"  # a run with a non-finite loss: record it and go on, or stop everything
    config.runs_per_step = 0  # runs vmapped together; 0: 1 on CPU, all elsewhere
    config.runs_per_wave = 0  # runs in device memory at once; 0: as many as fit, by XLA's memory analysis
    config.memory_gib = 0.0  # what may be used of each device; 0: all of a GPU or TPU, 0.8 of a host's memory
    config.checkpoint_epochs = 0  # save every so many epochs; 0: at the end only (and when interrupted)
    config.evaluate_epochs = ConfigDict({"dense": 20, "log_spaced": 12})  # every epoch to `dense`, then log-spaced
    config.converged = ConfigDict({"loss": 0.05, "accuracy": 1.0})  # what counts as a converged run, on training data
    config.dataset = ConfigDict({"name": "digits", "train_per_class": 0, "data_dir": ""})  # 0: all of them
    config.model = ConfigDict({"name": "resnet32", "features": "relu"})
    # ufm_ce and packing are for more classes than dimensions; file: path is an .npy of frames (K, D, C), a run for each
    config.frame = ConfigDict({"kind": "simplex_etf", "scale": 1.0, "path": ""})
    config.runs = ConfigDict(
        {"permutations": 10, "rotations": 10, "seeds": 10, "repeats": 2, "jitters": 4, "cross_seeds": 1}
    )
    config.optimizer = ConfigDict({"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "step"})
    config.mesh = ConfigDict({"runs": 0, "data": 0})  # devices along each axis; 0: automatic, runs first
    return config


def flatten(config, prefix="") -> dict:
    """Nested settings as {"optimizer.momentum": 0.9, ...}."""
    flat = {}
    for key, value in config.items():
        nested = hasattr(value, "items")
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def validate(config: ConfigDict) -> FrozenConfigDict:
    """The settings, checked and frozen.

    Raises:
      InputError: naming the key, the value found and what is accepted.
    """
    flat = flatten(config)
    known = flatten(default_config())
    _check_keys(flat, known)
    for key, choices in CHOICES.items():
        _require(flat[key] in choices, key, flat[key], "one of " + ", ".join(choices))
    for key, value in flat.items():
        _require(not isinstance(value, float) or math.isfinite(value), key, value, "a finite number")
    for key in POSITIVE:
        _require(flat[key] > 0, key, flat[key], "a number above 0")
    for key in NOT_NEGATIVE:
        _require(flat[key] >= 0, key, flat[key], "0 or more")
    momentum, accuracy = flat["optimizer.momentum"], flat["converged.accuracy"]
    _require(0 <= momentum < 1, "optimizer.momentum", momentum, "at least 0 and below 1")
    _require(0 < accuracy <= 1, "converged.accuracy", accuracy, "above 0, at most 1")
    from_file = flat["frame.kind"] == "file"
    wanted = "the .npy file of the frames" if from_file else "empty unless config.frame.kind is file"
    _require(from_file == bool(flat["frame.path"]), "frame.path", flat["frame.path"], wanted)
    total = sum(config.runs[family] for family in ("permutations", "rotations", "seeds", "repeats", "jitters"))
    _require(total > 0 or from_file, "runs", dict(config.runs), "at least one run in one family")
    return FrozenConfigDict(config)


def placed_automatically(settings: FrozenConfigDict) -> FrozenConfigDict:
    """The settings with runs placed as suits this machine, not the one that trained them."""
    config, defaults = ConfigDict(settings.to_dict()), flatten(default_config())
    config.update_from_flattened_dict({key: defaults[key] for key in PLACEMENT if key != "dataset.data_dir"})
    return FrozenConfigDict(config)


def difference(stored: dict, config) -> list[str]:
    """Lines naming every setting that differs between a stored config and this one, placement apart."""
    old, new = flatten(stored), flatten(config)
    keys = [key for key in sorted(old.keys() | new.keys()) if key not in PLACEMENT]
    return [f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in keys if old.get(key) != new.get(key)]


def _check_keys(flat: dict, known: dict) -> None:
    wrong = sorted(flat.keys() ^ known.keys())
    if wrong:
        problem = "is missing" if wrong[0] in known else "is not a setting"
        raise InputError(f"config.{wrong[0]} {problem}; start from ncjax.config.default_config() and see its keys")
    for key, value in flat.items():
        expected = type(known[key])
        fits = type(value) is expected or (expected is float and type(value) is int)
        _require(fits, key, value, f"of type {expected.__name__}")


def _require(condition: bool, key: str, value, accepted: str) -> None:
    if not condition:
        raise InputError(f"config.{key} is {value!r}: it must be {accepted}")
