"""The loop: records, checkpoints, resume, refusal."""

import shutil

import numpy as np
import pytest

import ncjax
from ncjax.errors import InputError
from ncjax.store import records
from ncjax.store.checkpoint import Checkpoints
from ncjax.training.schedule import checkpoint_epochs, evaluation_epochs
from ncjax.training.train import train

from .conftest import assert_same_workdir, settings_for


def test_rows_have_neither_doubles_nor_holes(whole):
    rows = records.read_rows(whole[0])
    keys = [(row["epoch"], row["run"], row["split"], row["metric"]) for row in rows]
    metrics = {key[3] for key in keys}
    epochs = evaluation_epochs(6, **whole[1].evaluate_epochs)
    assert len(set(keys)) == len(keys) == len(epochs) * 5 * 2 * len(metrics)
    assert {row["step"] for row in rows} == {3 * epoch for epoch in epochs}


def test_resume_ends_with_the_same_bits(whole, tmp_path):
    workdir, settings = whole
    shutil.copytree(workdir, tmp_path / "cut")
    with Checkpoints(tmp_path / "cut") as checkpoints:
        checkpoints.discard_after(6)
    assert train(settings, tmp_path / "cut") == 6
    assert_same_workdir(workdir, tmp_path / "cut", settings)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_resume_past_a_damaged_checkpoint(whole, tmp_path, capsys):
    workdir, settings = whole
    shutil.copytree(workdir, tmp_path / "cut")
    for path in (tmp_path / "cut" / "checkpoints" / "18" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:1])
    assert train(settings, tmp_path / "cut") == 6
    assert "checkpoint 18 cannot be read" in capsys.readouterr().out
    assert_same_workdir(workdir, tmp_path / "cut", settings)


def test_a_finished_workdir_is_left_as_it_is(whole):
    workdir, settings = whole
    before = (workdir / records.METRICS).read_text()
    assert train(settings, workdir) == 6
    assert (workdir / records.METRICS).read_text() == before
    assert len(records.read_json(workdir / "environment.json")["starts"]) >= 2


def test_waves_give_the_same_numbers(whole, data_file, tmp_path):
    """Bitwise as long as a device loops over its runs in both cases."""
    waves = settings_for(data_file, runs_per_wave=4)
    assert train(waves, tmp_path / "waves") == 6
    assert_same_workdir(whole[0], tmp_path / "waves", waves)


def test_another_config_is_refused_and_nothing_changes(whole, data_file):
    workdir, _ = whole
    before = {path: path.read_bytes() for path in workdir.glob("*.*")}
    with pytest.raises(InputError, match=r"batch_size: 16 there, 8 here.*another --workdir"):
        train(settings_for(data_file, batch_size=8), workdir)
    assert {path: path.read_bytes() for path in workdir.glob("*.*")} == before


def test_other_data_under_the_same_name_is_refused(data_file, tmp_path):
    copy = tmp_path / "data.npz"
    shutil.copy(data_file, copy)
    settings = settings_for(copy, epochs=1)
    train(settings, tmp_path / "run")
    with np.load(copy) as archive:
        arrays = dict(archive)
    arrays["test_images"] = arrays["test_images"] ^ 1
    np.savez(copy, **arrays)
    with pytest.raises(InputError, match="other data"):
        train(settings, tmp_path / "run")


def test_frames_from_a_file_are_a_family_and_may_not_change(data_file, tmp_path):
    file = tmp_path / "frames.npy"
    generator = np.random.default_rng(0)
    np.save(file, generator.standard_normal((2, 64, 3)))
    settings = settings_for(data_file, epochs=1, **{"frame.kind": "file", "frame.path": str(file)})
    train(settings, tmp_path / "run")
    assert [run["family"] for run in records.read_json(tmp_path / "run" / "runs.json")].count("file") == 2
    file.rename(tmp_path / "moved.npy")
    runs = ncjax.load(tmp_path / "run")  # analysis needs the stored frames alone
    assert runs.features(runs.steps[-1], "test", 3).shape == (30, 64)
    np.save(file, generator.standard_normal((2, 64, 3)))
    with pytest.raises(InputError, match="other frames"):
        train(settings, tmp_path / "run")


def test_divergence_is_recorded_or_stops(data_file, tmp_path):
    wild = {"optimizer.learning_rate": 1e30, "epochs": 2}
    assert train(settings_for(data_file, **wild), tmp_path / "recorded") == 2
    assert any(np.isnan(row["value"]) for row in records.read_rows(tmp_path / "recorded") if row["metric"] == "loss")
    with pytest.raises(InputError, match="diverged by epoch"):
        train(settings_for(data_file, on_divergence="stop", **wild), tmp_path / "stopped")


def test_a_batch_above_the_training_set_is_refused(data_file, tmp_path):
    with pytest.raises(InputError, match=r"batch_size is 64, above the 48 training images"):
        train(settings_for(data_file, batch_size=64), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_epoch_rules():
    assert evaluation_epochs(150, 5, 3) == [1, 2, 3, 4, 5, 16, 48, 150]
    assert evaluation_epochs(3, 20, 10) == [1, 2, 3]
    assert evaluation_epochs(100, 0, 2) == [10, 100]
    assert evaluation_epochs(7, 2, 0) == [1, 2, 7]
    assert checkpoint_epochs(10, 4) == [4, 8, 10]
    assert checkpoint_epochs(10, 0) == [10]
