"""Tables and plots of measured rows; a plot is drawn from the rows of a file alone."""

from pathlib import Path

COLUMNS = ("case", "variant", "dtype", "R", "B", "run-images/s (min-max)", "x torch", "x naive", "of limit")
COLUMNS += ("compile s", "peak MiB", "plan MiB")


def table(rows: list[dict]) -> str:
    """Aligned columns; what was not measured stays blank, a failed variant says why."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    notes = [f"{row['case']} {row['variant']}: {row['error']}" for row in rows if row.get("error")]
    return "\n".join([*aligned, *notes])


def _aligned(cells: tuple[str, ...], widths: list[int]) -> list[str]:
    texts = 3  # columns of words stand on the left
    return [
        cell.ljust(width) if column < texts else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]


def _cells(row: dict) -> tuple[str, ...]:
    rate = "failed"
    if not row.get("error"):
        rate = f"{row['rate']:,.0f} ({row['rate_min']:,.0f}-{row['rate_max']:,.0f})"
    return (
        row["case"],
        row["variant"],
        row["dtype"],
        str(row["runs"]),
        str(row["batch_size"]),
        rate,
        _number(row.get("x_torch"), "{:.2f}"),
        _number(row.get("x_naive"), "{:.2f}"),
        _shares(row),
        _number(row.get("compile_seconds"), "{:.1f}"),
        _mebibytes(row.get("peak_bytes")),
        _mebibytes(row.get("planned_bytes")),
    )


def _shares(row: dict) -> str:
    """The share of arithmetic; where bandwidth limits too, both."""
    arithmetic = _number(row.get("share_of_arithmetic"), "{:.1%}")
    bandwidth = _number(row.get("share_of_bandwidth"), "{:.1%}")
    return f"{arithmetic} flops, {bandwidth} bytes" if bandwidth else arithmetic


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:,.0f}"


def plot_ratios(rows: list[dict], path: Path) -> Path:
    """Times PyTorch of every variant as points with whiskers from minimum to maximum; one panel per device."""
    rows = [row for row in rows if row.get("x_torch") is not None and row["variant"] != "torch"]
    kinds = list(dict.fromkeys(row["device_kind"] for row in rows))
    panels = [_grouped([row for row in rows if row["device_kind"] == kind]) for kind in kinds]
    heights = [len(panel) for panel in panels] or [1]
    figure, axes = _figure((6.4, 0.9 + 0.22 * sum(heights) + 0.7 * len(heights)), len(heights), heights)
    for axis, kind, panel in zip(axes, kinds, panels, strict=False):
        _ratio_panel(axis, panel)
        axis.set_title(kind, fontsize=9, loc="left")
    axes[-1].set_xlabel("throughput relative to PyTorch (median, min to max)")
    return _save(figure, path)


def _grouped(rows: list[dict]) -> list[dict | str]:
    """Rows in groups of one case, dtype and number of runs, a heading before each group."""
    groups = {}
    for row in rows:
        heading = f"{row['case']}, B={row['batch_size']}, R={row['runs']}, {row['dtype']}"
        groups.setdefault(heading, []).append(row)
    return [entry for heading, members in groups.items() for entry in (heading, *members)]


def _ratio_panel(axis, entries: list[dict | str]) -> None:
    for y, entry in enumerate(entries):
        if isinstance(entry, str):
            continue
        middle, low, high = (entry[key] for key in ("x_torch", "x_torch_min", "x_torch_max"))
        color = "tab:gray" if entry["variant"].startswith("naive") else "tab:blue"
        axis.errorbar(middle, y, xerr=[[middle - low], [high - middle]], fmt="o", ms=4, capsize=2, lw=1, color=color)
    axis.axvline(1, color="black", lw=0.8)
    axis.set_xscale("log")
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if _within(tick, entries)]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(entries)), [e if isinstance(e, str) else e["variant"] for e in entries], fontsize=8)
    for label, entry in zip(axis.get_yticklabels(), entries, strict=True):
        label.set_fontweight("bold" if isinstance(entry, str) else "normal")
    axis.set_ylim(len(entries) - 0.5, -0.5)
    axis.grid(axis="x", lw=0.3)


def _within(tick: float, entries: list[dict | str]) -> bool:
    """Whether a tick lies among the values or next to them; 1 always does."""
    values = [entry[key] for entry in entries if isinstance(entry, dict) for key in ("x_torch_min", "x_torch_max")]
    return min([*values, 1]) / 2.5 <= tick <= 2.5 * max([*values, 1])


def plot_cost_per_run(rows: list[dict], path: Path) -> Path:
    """Milliseconds per step and run against the number of runs, a line per variant, a panel per dtype."""
    rows = [row for row in rows if not row.get("error")]
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows)) or [""]
    figure, axes = _figure((3.4 * len(dtypes) + 2.2, 3.4), columns=len(dtypes))
    for axis, dtype in zip(axes, dtypes, strict=True):
        _cost_panel(axis, [row for row in rows if row["dtype"] == dtype])
        axis.set_title(dtype, fontsize=9)
        axis.set_xlabel("runs")
    axes[0].set_ylabel("milliseconds per step and run")
    if rows:
        axes[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return _save(figure, path)


def _cost_panel(axis, rows: list[dict]) -> None:
    lines = {}
    for row in sorted(rows, key=lambda row: row["runs"]):
        for name in row.get("strategies") or [row["variant"]]:
            lines.setdefault(name, []).append(row)
    for index, (name, members) in enumerate(lines.items()):
        costs = [1e3 * row["batch_size"] / row["rate"] for row in members]
        axis.plot([row["runs"] for row in members], costs, "o-", ms=3, lw=1, label=name, color=f"C{index}")
    axis.set_xscale("log")
    axis.set_yscale("log")
    counts = sorted({row["runs"] for row in rows})
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.grid(lw=0.3)


def _figure(size: tuple[float, float], rows: int = 1, heights: list[int] | None = None, columns: int = 1):
    import matplotlib.figure

    figure = matplotlib.figure.Figure(size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights})
    return figure, list(grid.flat)


def _save(figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200, metadata={"Software": None})
    return path
