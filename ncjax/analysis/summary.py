"""What a user sees at the end: one table, one sentence, the paths of the figures."""

from pathlib import Path

from ncjax.analysis.families import family_table, verdict
from ncjax.analysis.figures import draw_all
from ncjax.analysis.runset import RunSet
from ncjax.store.records import write_table

COLUMNS = {  # key of the table: (heading, format)
    "family": ("family", "{}"),
    "runs": ("runs", "{}"),
    "converged": ("converged", "{}"),
    "test_accuracy_mean": ("test acc", "{:.4f}"),
    "test_accuracy_std": ("std", "{:.4f}"),
    "test_accuracy_min": ("min", "{:.4f}"),
    "test_accuracy_max": ("max", "{:.4f}"),
    "excess_variance": ("excess var", "{:+.1e}"),
    "test_loss": ("test loss", "{:.4f}"),
    "p_min": ("p_min", "{:+.2f}"),
    "nc1_quotient": ("NC1", "{:.2e}"),
    "tpt_start_epoch": ("TPT start", "{:.1f}"),
    "last_epoch_below": ("below till", "{}"),
    "tpt_gain": ("TPT gain", "{:+.4f}"),
}


def summarise(runs: RunSet, folder: Path, say=print) -> None:
    """Print the family table and the verdict; write both tables/families.csv and the figures under `folder`."""
    table = family_table(runs)
    path = folder / "tables" / "families.csv"
    write_table(path, table)
    say(table_text(table))
    say(f"\n{verdict(runs)}\n")
    say(f"table    {path}")
    for figure in draw_all(runs, folder / "figures"):
        say(f"figure   {figure}")


def table_cells(table: list[dict]) -> list[dict[str, str]]:
    """The family table as people read it: {heading: text} for every row."""
    return [{heading: form.format(row[key]) for key, (heading, form) in COLUMNS.items()} for row in table]


def table_text(table: list[dict]) -> str:
    """The family table for a terminal."""
    return aligned(table_cells(table))


def aligned(rows: list[dict[str, str]]) -> str:
    """Rows of texts under their keys, columns aligned."""
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells)
