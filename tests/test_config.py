"""Settings: what is accepted, what is refused, and how clearly."""

import pytest

from ncjax.config import default_config, difference, validate
from ncjax.errors import InputError


def test_defaults_are_valid_and_frozen():
    settings = validate(default_config())
    with pytest.raises(AttributeError):
        settings.epochs = 3


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.name", "resnet33", "one of resnet32"),
        ("epochs", 0, "above 0"),
        ("optimizer.learning_rate", float("nan"), "finite"),
        ("optimizer.learning_rate", float("inf"), "finite"),
        ("optimizer.momentum", 1.0, "below 1"),
        ("optimizer.weight_decay", -1e-4, "0 or more"),
        ("converged.accuracy", 1.5, "at most 1"),
        ("dataset.train_per_class", -1, "0 or more"),
        ("runs.cross_seeds", 0, "above 0"),
        ("frame.kind", "etf", "one of simplex_etf, ufm_ce, packing, file"),
        ("frame.scale", 0.0, "above 0"),
        ("frame.path", "frames.npy", "empty unless config.frame.kind is file"),
    ],
)
def test_bad_value_names_key_value_and_what_is_accepted(key, value, said):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=said) as error:
        validate(config)
    assert f"config.{key} is {value!r}" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_and_missing_keys_are_named():
    config = default_config()
    config.optimizer.momentun = 0.9
    with pytest.raises(InputError, match=r"config\.optimizer\.momentun is not a setting"):
        validate(config)
    config = default_config()
    del config["epochs"]
    with pytest.raises(InputError, match=r"config\.epochs is missing"):
        validate(config)


def test_a_config_without_runs_is_refused():
    config = default_config()
    config.runs.update(dict.fromkeys(("permutations", "rotations", "seeds", "repeats", "jitters"), 0))
    with pytest.raises(InputError, match="at least one run"):
        validate(config)


def test_frames_of_a_file_need_its_path_and_are_runs_themselves():
    config = default_config()
    config.frame.kind = "file"
    with pytest.raises(InputError, match=r"config\.frame\.path is '': it must be the \.npy file"):
        validate(config)
    config.frame.path = "frames.npy"
    config.runs.update(dict.fromkeys(("permutations", "rotations", "seeds", "repeats", "jitters"), 0))
    assert validate(config).frame.path == "frames.npy"


def test_difference_names_what_differs_and_forgives_placement():
    config = default_config()
    stored = config.to_dict()
    config.runs_per_step = 7
    config.mesh.data = 2
    assert difference(stored, validate(config)) == []
    config.optimizer.weight_decay = 0.25
    assert difference(stored, validate(config)) == ["optimizer.weight_decay: 0.0005 there, 0.25 here"]
