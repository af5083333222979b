"""CIFAR-100, 32x32x3, 50,000 training images: the paper's setting, one of its three backbones per variant.

    python -m ncjax.main --config=configs/cifar100.py               # ResNet-32
    python -m ncjax.main --config=configs/cifar100.py:vgg11
    python -m ncjax.main --config=configs/cifar100.py:densenet121

10 permutations and 10 rotations with one seed, and the controls; SGD, 200 epochs, batch 128, no augmentation.
ResNet-32 has 64 features, too few for a simplex ETF of 100 classes: its frame comes from the unconstrained feature
model (frame.kind = ufm_ce), as in the paper. Downloads through tensorflow-datasets, without TensorFlow. Hardware: one
GPU or TPU or more. No duration measured yet.
"""

from ncjax.config import default_config

VARIANTS = ("resnet32", "vgg11", "densenet121")


def get_config(backbone="resnet32"):
    config = default_config()
    config.dataset.name = "tfds:cifar100"
    config.model.name = backbone
    if backbone == "resnet32":  # 64 dimensions hold no simplex ETF of 100 classes
        config.frame.kind = "ufm_ce"
    return config
