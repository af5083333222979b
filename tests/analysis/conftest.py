"""A small trained workdir."""

import pytest

import ncjax
from ncjax.config import default_config, validate
from ncjax.training.train import train


def small_config():
    config = default_config()
    changes = {
        "model.name": "mlp",
        "dataset.train_per_class": 10,
        "batch_size": 25,
        "epochs": 12,
        "checkpoint_epochs": 6,
    }
    changes |= {"runs.permutations": 3, "runs.rotations": 3, "runs.seeds": 3, "runs.repeats": 2, "runs.jitters": 2}
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="package")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits")
    train(validate(small_config()), path)
    return path


@pytest.fixture(scope="package")
def runs(workdir):
    return ncjax.load(workdir)
