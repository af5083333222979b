"""Checkpoints: exact, and never silently wrong."""

import numpy as np
import pytest

from ncjax.errors import InputError
from ncjax.store.checkpoint import Checkpoints


def state(step):
    generator = np.random.default_rng(step)
    return {"step": np.full(3, step, np.int32), "params": {"kernel": generator.normal(size=(3, 64)).astype(np.float32)}}


@pytest.fixture
def workdir(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, state(step))
    return tmp_path


def data_files(workdir, step):
    return [path for path in (workdir / "checkpoints" / str(step) / "state").rglob("*") if path.is_file()]


def restored(workdir, said=None):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore_newest(state(0), report=(said if said is not None else []).append)


def test_newest_comes_back_bitwise(workdir):
    step, found = restored(workdir)
    assert step == 30
    np.testing.assert_array_equal(found["params"]["kernel"], state(30)["params"]["kernel"])
    assert found["params"]["kernel"].dtype == np.float32


def test_nothing_to_restore(tmp_path):
    assert restored(tmp_path) == (None, None)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(path):
    path.unlink()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("harm", [truncate, delete])
def test_damaged_newest_is_skipped_loudly(workdir, harm):
    for path in data_files(workdir, 30):
        harm(path)
    said = []
    step, found = restored(workdir, said)
    assert step == 20
    assert "30" in said[0]
    np.testing.assert_array_equal(found["params"]["kernel"], state(20)["params"]["kernel"])


# TensorStore's reads that outlive a failed restore complain to an event loop that is gone
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_any_flipped_byte_is_noticed(workdir):
    """Orbax alone restores some of these without complaint, with wrong numbers."""
    for path in data_files(workdir, 30):
        original = path.read_bytes()
        for position in range(0, len(original), max(1, len(original) // 5)):
            path.write_bytes(original[:position] + bytes([original[position] ^ 64]) + original[position + 1 :])
            step, found = restored(workdir)
            np.testing.assert_array_equal(found["params"]["kernel"], state(step)["params"]["kernel"])
        path.write_bytes(original)


def test_another_structure_is_refused(workdir):
    with Checkpoints(workdir) as checkpoints, pytest.raises(InputError, match="cannot be read"):
        checkpoints.restore(30, {"other": np.zeros(3)})


def test_discard_after_keeps_the_earlier(workdir):
    with Checkpoints(workdir) as checkpoints:
        checkpoints.discard_after(20)
        assert checkpoints.steps() == [10, 20]
