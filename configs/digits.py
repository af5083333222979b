"""Handwritten digits, ResNet-8, 42 runs: the default, offline, on any laptop.

python -m ncjax.main --config=configs/digits.py
"""

from ncjax.config import default_config


def get_config():
    config = default_config()
    config.dataset.name = "digits"
    config.dataset.train_per_class = 20
    config.model.name = "resnet8"
    config.epochs = 150
    config.batch_size = 50
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 5e-3
    config.evaluate_epochs.dense = 20
    config.evaluate_epochs.log_spaced = 10
    config.checkpoint_epochs = 50
    config.converged.loss = 0.03
    config.runs.permutations = 12
    config.runs.rotations = 12
    config.runs.seeds = 12
    config.runs.repeats = 2
    config.runs.jitters = 4
    return config
