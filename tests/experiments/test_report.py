"""Rows in files, tables and plots."""

import json

import pytest

from experiments.benchmarks import report
from experiments.benchmarks.timing import merge_rows, read_rows, write_rows


def row(variant="ncjax w=1", ratio=2.0, **more):
    own = {"device_kind": "cpu X", "case": "digits", "dtype": "float32", "runs": 4, "variant": variant}
    own |= {"batch_size": 50, "rate": 1e4 * ratio, "rate_min": 9e3 * ratio, "rate_max": 2e4 * ratio}
    return own | {"x_torch": ratio, "x_torch_min": 0.9 * ratio, "x_torch_max": 1.2 * ratio, "x_naive": None} | more


def failed():
    kept = {key: row()[key] for key in ("device_kind", "case", "dtype", "batch_size")}
    return kept | {"runs": 40, "variant": "ncjax w=40 im2col", "error": "XlaRuntimeError: RESOURCE_EXHAUSTED"}


def test_a_row_measured_again_takes_the_place_of_the_older_one():
    older = [row("torch", 1.0), row(), row(dtype="bfloat16"), row(device_kind="cpu Y")]
    merged = merge_rows(older, [row(ratio=3.0), row(runs=5)])
    assert merged == [older[0], row(ratio=3.0), older[2], older[3], row(runs=5)]


def test_written_rows_carry_command_and_machine_and_are_added_to(tmp_path):
    path = tmp_path / "new" / "rows.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"rows": [{"case": "of an older format"}]}))
    write_rows(path, [row(), failed()])
    merged = write_rows(path, [row(ratio=3.0)])
    assert read_rows(path) == merged
    assert [(found["variant"], found.get("x_torch")) for found in merged] == [
        ("ncjax w=1", 3.0),
        ("ncjax w=40 im2col", None),
    ]
    for found in merged:
        assert found["command"].startswith("python -m experiments.benchmarks.")
        assert {"cores", "cpu", "devices", "jax", "torch"} == found["machine"].keys()


def test_table_has_blanks_and_errors():
    heading, first, second, note = report.table([row(compile_seconds=1.5), failed()]).splitlines()
    assert "20,000 (18,000-40,000)" in first
    assert "2.00" in first
    assert "1.5" in first
    assert "failed" in second
    assert note == "digits ncjax w=40 im2col: XlaRuntimeError: RESOURCE_EXHAUSTED"
    assert heading.index("variant") == first.index("ncjax")


@pytest.mark.parametrize("draw", [report.plot_ratios, report.plot_cost_per_run])
def test_plots_are_drawn_from_rows_alone(tmp_path, draw):
    rows = [row("torch", 1.0), row("naive jit(vmap)", 0.1), row(), row(runs=10), row(device_kind="gpu"), failed()]
    assert draw(rows, tmp_path / "plots" / "plot.png").stat().st_size > 1000
