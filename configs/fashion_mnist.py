"""Fashion-MNIST, 28x28x1, 60,000 training images, one backbone per variant.

    python -m ncjax.main --config=configs/fashion_mnist.py            # ResNet-32
    python -m ncjax.main --config=configs/fashion_mnist.py:resnet20

Downloads through tensorflow-datasets. With the four IDX files already in a folder:
--config.dataset.name=idx:/path/to/folder

Hardware: one GPU or TPU; 52 runs of 200 epochs are days of work for a CPU. No duration measured yet.
"""

from ncjax.config import default_config

VARIANTS = ("resnet32", "resnet20", "resnet8", "convnet")


def get_config(backbone="resnet32"):
    config = default_config()
    config.dataset.name = "tfds:fashion_mnist"
    config.model.name = backbone
    return config
