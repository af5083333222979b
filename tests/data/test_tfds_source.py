"""The real builders of tensorflow-datasets on tiny archives in the formats of the real ones, offline."""

import gzip
import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import compute_url_info

from ncjax import data
from ncjax.data import tfds_source
from ncjax.errors import InputError

COUNTS = {"train": 23, "test": 9}


def content(name, split):
    """(images, labels) of a split; every class of the training split is there."""
    generator = np.random.default_rng([len(name), len(split)])
    side, channels = (28, 1) if "mnist" in name else (32, 3)
    images = generator.integers(0, 256, (COUNTS[split], side, side, channels)).astype(np.uint8)
    return images, (np.arange(COUNTS[split]) % 10).astype(np.uint8)


def cifar(folder, name, archive, prefix, files):
    with tarfile.open(folder / archive, "w:gz") as tar:
        for split, names in files.items():
            images, labels = content(name, split)
            coarse = [] if name == "cifar10" else [labels[:, None] // 2]
            pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            rows = np.concatenate([*coarse, labels[:, None], pixels], axis=1)
            for file, part in zip(names, np.array_split(rows, len(names)), strict=True):
                member = tarfile.TarInfo(f"{prefix}/{file}")
                member.size = part.nbytes
                tar.addfile(member, io.BytesIO(part.tobytes()))


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes())


def mnist(folder, name):
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = content(name, split)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images[..., 0]))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels))


def svhn(folder, name):
    for split in ("train", "test"):
        images, labels = content(name, split)
        y = np.where(labels == 0, 10, labels)[:, None]
        scipy.io.savemat(folder / f"{split}_32x32.mat", {"X": np.moveaxis(images, 0, -1), "y": y})


MAKE = {
    "cifar10": lambda folder: cifar(
        folder, "cifar10", "cifar-10-binary.tar.gz", "cifar-10-batches-bin",
        {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]},
    ),
    "cifar100": lambda folder: cifar(
        folder, "cifar100", "cifar-100-binary.tar.gz", "cifar-100-binary",
        {"train": ["train.bin"], "test": ["test.bin"]},
    ),
    "mnist": lambda folder: mnist(folder, "mnist"),
    "fashion_mnist": lambda folder: mnist(folder, "fashion_mnist"),
    "svhn_cropped": lambda folder: svhn(folder, "svhn_cropped"),
}  # fmt: skip


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A function that puts the tiny files of a dataset where a user would, their checksums in place of the real."""

    def make(name):
        folder = tmp_path / "manual" / name
        folder.mkdir(parents=True)
        MAKE[name](folder)
        base = tfds.builder_cls(name)
        found = {url: info for url, info in base.url_infos.items() if (folder / info.filename).exists()}
        tiny = {url: compute_url_info(folder / info.filename) for url, info in found.items()}
        monkeypatch.setattr(base, "url_infos", tiny)
        return folder

    return make


@pytest.mark.parametrize("name", MAKE)
def test_every_image_with_its_label(name, archive, tmp_path):
    archive(name)
    found = data.load(f"tfds:{name}", data_dir=str(tmp_path))
    for split in COUNTS:
        images, labels = content(name, split)
        order = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        loaded = getattr(found, f"{split}_images"), getattr(found, f"{split}_labels")
        assert loaded[0].shape == images.shape
        assert {image.tobytes(): label for image, label in zip(*loaded, strict=True)} == order
    assert found.num_classes == 10


def test_prepared_once_and_then_read_from_the_cache(archive, tmp_path, monkeypatch):
    archive("mnist")
    first = data.load("tfds:mnist", data_dir=str(tmp_path))
    monkeypatch.delattr(tfds_source, "read")
    assert data.load("tfds:mnist", data_dir=str(tmp_path)).fingerprint == first.fingerprint


def test_a_file_with_another_checksum_is_refused(archive, tmp_path):
    folder = archive("mnist")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(COUNTS["train"], np.uint8)))
    with pytest.raises(InputError, match=r"tfds:mnist cannot be prepared .*train-labels") as error:
        data.load("tfds:mnist", data_dir=str(tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mnist.npz").exists()


def test_without_a_connection_one_line_says_which_file_goes_where(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise tfds_source.urllib.error.URLError("no route to host")

    monkeypatch.setattr(tfds_source.urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError, match=r"no route to host.*put cifar-10-binary.tar.gz into .*manual/cifar10"):
        data.load("tfds:cifar10", data_dir=str(tmp_path))


def test_unknown_dataset_lists_the_known(tmp_path):
    with pytest.raises(InputError, match=r"'tfds:cifar11'.*tfds:cifar10, "):
        data.load("tfds:cifar11", data_dir=str(tmp_path))


def test_tensorflow_is_never_imported():
    code = "import ncjax.data.tfds_source, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
