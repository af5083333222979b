"""Sources: what is loaded, what is refused."""

import gzip

import numpy as np
import pytest

from ncjax import data
from ncjax.data.sources import read_idx
from ncjax.errors import InputError


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    return {
        "train_images": generator.integers(0, 256, (30, 6, 5, 3)).astype(np.uint8),
        "train_labels": np.arange(30) % 3,
        "test_images": generator.integers(0, 256, (10, 6, 5, 3)).astype(np.uint8),
        "test_labels": np.arange(10) % 3,
    }


def load_npz(folder, arrays, **settings):
    np.savez(folder / "data.npz", **arrays)
    return data.load(f"npz:{folder / 'data.npz'}", **settings)


def test_digits_are_split_stratified_and_the_same_every_time():
    found, again = (data.load("digits", train_per_class=20) for _ in range(2))
    assert found.fingerprint == again.fingerprint
    assert np.bincount(found.train_labels).tolist() == [20] * 10
    assert found.train_images.shape == (200, 8, 8, 1)
    assert found.test_images.shape == (1597, 8, 8, 1)
    everything = np.concatenate([found.train_images, found.test_images])
    from sklearn.datasets import load_digits

    original = load_digits().images.astype(np.uint8)[..., None]
    assert sorted(map(bytes, everything)) == sorted(map(bytes, original))


def test_more_images_per_class_keep_the_earlier():
    few, many = (data.load("digits", train_per_class=count) for count in (5, 10))
    assert set(map(bytes, few.train_images)) <= set(map(bytes, many.train_images))


def test_npz_comes_back_with_statistics_of_the_training_images(tmp_path, arrays):
    found = load_npz(tmp_path, arrays)
    np.testing.assert_array_equal(found.train_images, arrays["train_images"])
    np.testing.assert_array_equal(found.test_labels, arrays["test_labels"])
    assert found.num_classes == 3
    np.testing.assert_allclose(found.mean, arrays["train_images"].mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.std, arrays["train_images"].std(axis=(0, 1, 2)), rtol=1e-6)


def test_train_per_class_takes_so_many_of_each(tmp_path, arrays):
    found = load_npz(tmp_path, arrays, train_per_class=4)
    assert np.bincount(found.train_labels).tolist() == [4, 4, 4]
    assert len(found.test_labels) == 10
    with pytest.raises(InputError, match=r"train_per_class is 11, but class 0 .* has 10"):
        load_npz(tmp_path, arrays, train_per_class=11)


def test_fingerprint_sees_every_change(tmp_path, arrays):
    before = load_npz(tmp_path, arrays).fingerprint
    for name in arrays:
        changed = arrays | {name: np.roll(arrays[name], 1, axis=0)}
        assert load_npz(tmp_path, changed).fingerprint != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_images": np.zeros((30, 6, 5, 3))}, "must be uint8"),
        ({"train_labels": np.arange(30) % 3 + 0.5}, "integers"),
        ({"train_labels": np.arange(29) % 3}, "30 images and 29 labels"),
        ({"test_images": np.zeros((10, 6, 6, 3), np.uint8)}, "test images"),
        ({"train_labels": np.arange(30) % 3 + 1}, "class 0 of 4 has no training image"),
        ({"train_labels": np.zeros(30, int)}, "at least 2"),
        ({"test_labels": np.full(10, 7)}, "test label 7"),
        ({"train_labels": np.arange(30) % 3 - 1}, "from 0"),
    ],
)
def test_arrays_that_are_not_labelled_images_are_refused(tmp_path, arrays, change, said):
    with pytest.raises(InputError, match=said) as error:
        load_npz(tmp_path, arrays | change)
    assert "data.npz" in str(error.value)


def test_damaged_and_missing_npz(tmp_path, arrays):
    load_npz(tmp_path, arrays)
    path = tmp_path / "data.npz"
    whole = path.read_bytes()
    for keep in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:keep])
        with pytest.raises(InputError, match="cannot be read"):
            data.load(f"npz:{path}")
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        data.load(f"npz:{path}")
    with pytest.raises(InputError, match=r"lacks an array .*test_labels"):
        load_npz(tmp_path, {name: arrays[name] for name in list(arrays)[:3]})


def write_idx(path, array, zipped):
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path = path.with_name(path.name + ".gz") if zipped else path
    path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_folder(tmp_path, arrays, zipped):
    grey = {name: array[..., 0] if "images" in name else array.astype(np.uint8) for name, array in arrays.items()}
    for name, file in (("train", "train"), ("test", "t10k")):
        write_idx(tmp_path / f"{file}-images-idx3-ubyte", grey[f"{name}_images"], zipped)
        write_idx(tmp_path / f"{file}-labels-idx1-ubyte", grey[f"{name}_labels"], zipped)
    found = data.load(f"idx:{tmp_path}")
    np.testing.assert_array_equal(found.train_images[..., 0], grey["train_images"])
    np.testing.assert_array_equal(found.test_labels, grey["test_labels"])


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_idx(tmp_path, zipped):
    path = tmp_path / "labels"
    write_idx(path, np.arange(20, dtype=np.uint8), zipped)
    file = tmp_path / ("labels.gz" if zipped else "labels")
    whole = file.read_bytes()
    for keep in (0, 3, 6, len(whole) - 4):
        file.write_bytes(whole[:keep])
        with pytest.raises(InputError, match="labels"):
            read_idx(path)
    file.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_idx(path)


@pytest.mark.parametrize("name", ["", "digit", "npz", "npz:", "digits:3", "tfds:"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(InputError, match=r"use digits, npz:<file>, idx:<folder> or tfds:<name>"):
        data.load(name)
