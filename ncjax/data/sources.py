"""Where images come from. Every source gives four arrays; checks, subsampling and fingerprint are the same for all.

digits          scikit-learn's handwritten digits, 8x8
npz:<file>      train_images, train_labels, test_images, test_labels
idx:<folder>    the four files of the MNIST family, gzipped or not
tfds:<name>     through tensorflow-datasets, see tfds_source.py
"""

import gzip
import hashlib
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from ncjax.errors import InputError

SPLIT_SEED = 0  # of the digits split and of subsampling: data do not change with the seeds of the runs
DIGITS_PER_CLASS = 20


class Arrays(NamedTuple):
    """What a source gives."""

    train_images: UInt8[np.ndarray, "n h w k"]
    train_labels: Int[np.ndarray, " n"]
    test_images: UInt8[np.ndarray, "m h w k"]
    test_labels: Int[np.ndarray, " m"]


@dataclass(frozen=True)
class Dataset:
    """Checked data; `mean` and `std` per channel over the training images, in uint8 units."""

    name: str
    train_images: UInt8[np.ndarray, "n h w k"]
    train_labels: Int[np.ndarray, " n"]
    test_images: UInt8[np.ndarray, "m h w k"]
    test_labels: Int[np.ndarray, " m"]
    num_classes: int
    mean: Float[np.ndarray, " k"]
    std: Float[np.ndarray, " k"]
    fingerprint: str


def load(name: str, *, data_dir: str = "", train_per_class: int = 0) -> Dataset:
    """The data called `name`, with `train_per_class` training images of each class (0: all; digits: 20).

    Raises:
      InputError: for an unknown name, a missing or damaged file, or arrays that are not labelled uint8 images.
    """
    prefix, _, rest = name.partition(":")
    if prefix not in SOURCES or bool(rest) == (prefix == "digits"):
        raise InputError(f"config.dataset.name is {name!r}: use digits, npz:<file>, idx:<folder> or tfds:<name>")
    arrays = _checked(name, SOURCES[prefix](rest, Path(data_dir).expanduser() if data_dir else cache_dir() / "data"))
    if prefix == "digits":
        arrays = _split_digits(arrays, train_per_class or DIGITS_PER_CLASS)
    elif train_per_class:
        chosen = _first_of_each_class(name, arrays.train_labels, train_per_class)
        arrays = arrays._replace(train_images=arrays.train_images[chosen], train_labels=arrays.train_labels[chosen])
    pixels = arrays.train_images.astype(np.float64)
    std = pixels.std(axis=(0, 1, 2))
    return Dataset(
        name,
        *arrays,
        num_classes=int(arrays.train_labels.max()) + 1,
        mean=pixels.mean(axis=(0, 1, 2)).astype(np.float32),
        std=np.where(std > 0, std, 1).astype(np.float32),
        fingerprint=fingerprint(arrays),
    )


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/ncjax, by default ~/.cache/ncjax: what can be downloaded or computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ncjax"


def fingerprint(arrays: Arrays) -> str:
    """SHA-256 of names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name, array in arrays._asdict().items():
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digits(_: str, __: Path) -> Arrays:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images.astype(np.uint8)[..., None]
    return Arrays(images, found.target, images, found.target)  # split once the number per class is known


def _split_digits(arrays: Arrays, per_class: int) -> Arrays:
    """The first images of a fixed shuffle of every class train, all others test."""
    chosen = _first_of_each_class("digits", arrays.train_labels, per_class)
    others = np.setdiff1d(np.arange(len(arrays.train_labels)), chosen)
    if not len(others):
        raise InputError(f"config.dataset.train_per_class is {per_class}: no digits are left to test on, use fewer")
    images, labels = arrays.train_images, arrays.train_labels
    return Arrays(images[chosen], labels[chosen], images[others], labels[others])


def _npz(file: str, _: Path) -> Arrays:
    path = Path(file).expanduser()
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return Arrays(*(archive[name] for name in Arrays._fields))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: config.dataset.name=npz:<file> names an .npz file") from None
    except KeyError as error:
        wanted = ", ".join(Arrays._fields)
        raise InputError(f"{path} lacks an array ({error.args[0]}): it must hold {wanted}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as .npz of plain arrays ({error})") from None


def _idx(folder: str, _: Path) -> Arrays:
    names = [f"{split}-{part}" for split in ("train", "t10k") for part in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    return Arrays(*(read_idx(Path(folder).expanduser() / name) for name in names))


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """An IDX file of bytes, `path` or `path`.gz. Format: LeCun's MNIST page.

    Raises:
      InputError: when it is missing, cut short or something else.
    """
    zipped = path.with_name(path.name + ".gz")
    path, opener = (path, open) if path.exists() else (zipped, gzip.open)
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: idx:<folder> needs the four files of the MNIST family") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from None
    return parse_idx(content, path)


def parse_idx(content: bytes, origin) -> UInt8[np.ndarray, "..."]:
    """The array in the bytes of an IDX file; `origin` names it in errors."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise InputError(f"{origin} is not an IDX file of bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise InputError(f"{origin} is cut short: fetch it again")
    shape = np.frombuffer(content[4:start], ">u4").astype(int)
    if len(content) - start != np.prod(shape):
        raise InputError(f"{origin} is cut short or too long for its shape {tuple(shape.tolist())}: fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _tfds(name: str, data_dir: Path) -> Arrays:
    """What tensorflow-datasets prepared, read once and kept as one .npz beside it."""
    cached = data_dir / f"{name}.npz"
    if not cached.exists():
        from ncjax.data.tfds_source import read

        arrays = read(name, data_dir)
        temporary = cached.with_name(f".{cached.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays._asdict())
        temporary.replace(cached)
    return _npz(str(cached), data_dir)


SOURCES = {"digits": _digits, "npz": _npz, "idx": _idx, "tfds": _tfds}


def _checked(name: str, arrays: Arrays) -> Arrays:
    """The arrays as (N, H, W, channels) uint8 and (N,) int32."""
    train_images, test_images = (_images(name, arrays, split) for split in ("train", "test"))
    train_labels, test_labels = (_labels(name, arrays, split) for split in ("train", "test"))
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if len(images) != len(labels) or not len(images):
            raise InputError(f"{name} has {len(images)} images and {len(labels)} labels: every image needs one label")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise InputError(f"{name}: training images are {train_images.shape[1:]}, test images {test_images.shape[1:]}")
    counts = np.bincount(train_labels)
    if len(counts) < 2 or not counts.all():
        raise InputError(f"{name}: class {int(np.argmin(counts))} of {len(counts)} has no training image; "
                         "labels must be 0, 1, ... C-1 with C at least 2")  # fmt: skip
    if test_labels.max() >= len(counts):
        raise InputError(f"{name}: test label {test_labels.max()} does not occur among the training labels")
    return Arrays(train_images, train_labels, test_images, test_labels)


def _images(name: str, arrays: Arrays, split: str) -> np.ndarray:
    images = getattr(arrays, f"{split}_images")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{name}: {split}_images is {images.dtype} {images.shape}; it must be uint8 (N, H, W[, channels])"
        )
    return images[..., None] if images.ndim == 3 else images


def _labels(name: str, arrays: Arrays, split: str) -> np.ndarray:
    labels = getattr(arrays, f"{split}_labels")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (labels < 0).any():
        raise InputError(f"{name}: {split}_labels is {labels.dtype} {labels.shape}; it must be (N,) integers from 0")
    return labels.astype(np.int32)


def _first_of_each_class(name: str, labels: np.ndarray, per_class: int) -> Int[np.ndarray, " n"]:
    """Indices of the first `per_class` images of every class in a fixed shuffle, in their old order."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    chosen = []
    for label in range(labels.max() + 1):
        members = order[labels[order] == label]
        if len(members) < per_class:
            raise InputError(
                f"config.dataset.train_per_class is {per_class}, but class {label} of {name} has {len(members)} images"
            )
        chosen.append(members[:per_class])
    return np.sort(np.concatenate(chosen))
