"""Rows and arrays: nothing lost, doubled or half written."""

import numpy as np
import pytest

from ncjax.errors import InputError
from ncjax.store import records


def rows(step, values=(0.1, float("nan"))):
    return [
        {"step": step, "epoch": step // 4, "run": run, "split": "train", "metric": "loss", "value": value}
        for run, value in enumerate(values)
    ]


def test_rows_come_back_with_every_bit(tmp_path):
    values = [np.float64(1) / 3, 1e-300, -0.0, float("inf")]
    records.append_rows(tmp_path, rows(4, values))
    records.append_rows(tmp_path, rows(8, values))
    found = records.read_rows(tmp_path)
    assert [row["step"] for row in found] == [4] * 4 + [8] * 4
    np.testing.assert_array_equal([row["value"] for row in found], values * 2)


def test_line_cut_short_by_a_crash_is_left_out(tmp_path):
    records.append_rows(tmp_path, rows(4) + rows(8))
    path = tmp_path / records.METRICS
    path.write_text(path.read_text()[:-3])
    assert len(records.read_rows(tmp_path)) == 3


def test_damaged_line_is_named(tmp_path):
    records.append_rows(tmp_path, rows(4) + rows(8))
    path = tmp_path / records.METRICS
    path.write_text(path.read_text().replace("0.1", "zero", 1))
    with pytest.raises(InputError, match="line 2 is damaged"):
        records.read_rows(tmp_path)


def test_resume_leaves_neither_doubles_nor_holes(tmp_path):
    for step in (4, 8, 12):
        records.append_rows(tmp_path, rows(step))
        records.write_arrays(records.arrays_path(tmp_path, step), {"a": np.arange(3)})
    records.keep_rows_until(tmp_path, 8)
    records.append_rows(tmp_path, rows(12))
    assert [row["step"] for row in records.read_rows(tmp_path)] == [4, 4, 8, 8, 12, 12]
    assert records.read_arrays(records.arrays_path(tmp_path, 8))["a"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"00000012\.npz"):
        records.read_arrays(records.arrays_path(tmp_path, 12))


@pytest.mark.parametrize("keep", [0, 10, 100])
def test_damaged_arrays_are_one_clear_error(tmp_path, keep):
    path = records.arrays_path(tmp_path, 1)
    records.write_arrays(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read"):
        records.read_arrays(path)


def test_missing_json_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        records.read_json(tmp_path / "config.json")
