"""CIFAR, MNIST, Fashion-MNIST and SVHN through tensorflow-datasets, without TensorFlow.

tensorflow-datasets knows where the files are, downloads them and enforces their checksums. Its readers of these
datasets need TensorFlow for three small things (unpacking, reading a file, writing PNG), which the subclasses made
here do otherwise; the records they prepare, in array_record format, are those that TensorFlow would make.
"""

import gzip
import io
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8
from PIL import Image
from scipy.io import loadmat
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.registered import skip_registration

from ncjax.data.sources import Arrays, parse_idx
from ncjax.errors import InputError

SPLITS = ("train", "test")
TIMEOUT_SECONDS = 10


class Content(NamedTuple):
    """One split as its files hold it; `labels` by the name of the feature."""

    images: UInt8[np.ndarray, "n h w k"]
    labels: dict[str, Int[np.ndarray, " n"]]


def read(name: str, data_dir: Path) -> Arrays:
    """Train and test split of a dataset, downloaded and prepared under `data_dir` where it is not yet.

    Files found in `data_dir`/manual/`name` are not downloaded.

    Raises:
      InputError: for an unknown name, without a connection, or when a file does not have its checksum.
    """
    if name not in READERS:
        known = ", ".join(f"tfds:{known}" for known in READERS)
        raise InputError(f"config.dataset.name is 'tfds:{name}': use one of {known}")
    builder = _builder_class(name)(data_dir=data_dir, file_format="array_record")
    _prepare(builder, data_dir)
    arrays = []
    for split in SPLITS:
        records = list(builder.as_data_source(split))
        arrays += [np.stack([record["image"] for record in records]), np.array([record["label"] for record in records])]
    return Arrays(*arrays)


def _prepare(builder, data_dir: Path) -> None:
    manual = data_dir / "manual" / builder.name
    if not builder.data_path.exists():
        _require_files(builder.url_infos, manual)
    config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_dir=data_dir / "downloads", download_config=config)
    except (
        NonMatchingChecksumError,
        tfds.download.DownloadError,
        tarfile.TarError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"tfds:{builder.name} cannot be prepared in {data_dir}: {reason}") from error


def _require_files(url_infos: dict, manual: Path) -> None:
    """Without a connection tensorflow-datasets would try for minutes: ask once, and say which file goes where."""
    for url, info in url_infos.items():
        if (manual / info.filename).exists():
            continue
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_SECONDS).close()
        except urllib.error.HTTPError:
            return  # the server answers: whatever is wrong, the download will say
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise InputError(
                f"{url} cannot be reached ({reason}): connect, or put {info.filename} into {manual}"
            ) from None
        return


def _builder_class(name: str) -> type:
    """The stock builder with this module's reader in the place of its own."""
    base = tfds.builder_cls(name)
    read_splits, id_digits = READERS[name]

    def split_generators(self, downloads):
        return {split: self._generate_examples(split, content) for split, content in read_splits(self, downloads)}

    def generate_examples(self, split, content):
        for index, image in enumerate(content.images):
            record = {key: int(labels[index]) for key, labels in content.labels.items()}
            record |= {"id": f"{split}_{index:0{id_digits}d}"} if id_digits else {}
            yield index, record | {"image": _png(image)}

    overrides = {
        "name": name,
        "url_infos": {url: info for url, info in base.url_infos.items() if "extra" not in info.filename},
        "_split_generators": split_generators,
        "_generate_examples": generate_examples,
        "__module__": base.__module__,  # where tensorflow-datasets looks for citation and version
    }
    with skip_registration():
        return type("Builder", (base,), overrides)


def _png(image: UInt8[np.ndarray, "h w k"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def _cifar(builder, downloads) -> Iterator[tuple[str, Content]]:
    """Rows of one or two label bytes and 3 x 32 x 32 pixels, in a tar file."""
    info = builder._cifar_info
    width = len(info.label_keys)
    with tarfile.open(downloads.download(info.url)) as archive:
        for split, files in zip(SPLITS, (info.train_files, info.test_files), strict=True):
            content = b"".join(archive.extractfile(info.prefix + file).read() for file in files)
            rows = np.frombuffer(content, np.uint8).reshape(-1, width + 3 * 32 * 32)
            images = rows[:, width:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            yield split, Content(images, dict(zip(info.label_keys, rows[:, :width].T, strict=True)))


def _mnist(builder, downloads) -> Iterator[tuple[str, Content]]:
    """Two gzipped IDX files a split."""
    for split, prefix in zip(SPLITS, ("train", "t10k"), strict=True):
        paths = [_download(builder, downloads, f"{prefix}-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1")]
        images, labels = (parse_idx(gzip.decompress(path.read_bytes()), path) for path in paths)
        yield split, Content(images[..., None], {"label": labels})


def _svhn(builder, downloads) -> Iterator[tuple[str, Content]]:
    """A MATLAB file a split, X (32, 32, 3, N), y (N, 1) in 1 to 10, where 10 is the digit 0."""
    for split in SPLITS:
        content = loadmat(_download(builder, downloads, f"{split}_32x32.mat"))
        yield split, Content(np.moveaxis(content["X"], -1, 0), {"label": content["y"][:, 0] % 10})


def _download(builder, downloads, filename: str):
    url = next(url for url, info in builder.url_infos.items() if info.filename == filename)
    return downloads.download(url)


READERS: dict[str, tuple[Callable, int]] = {  # name: (reader, digits of a record's id; 0: it has none)
    "cifar10": (_cifar, 5),
    "cifar100": (_cifar, 5),
    "mnist": (_mnist, 0),
    "fashion_mnist": (_mnist, 0),
    "svhn_cropped": (_svhn, 6),
}
