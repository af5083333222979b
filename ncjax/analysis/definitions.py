"""What every metric means, read from the tables in the docstrings of the modules that compute them."""

import re

from ncjax.analysis import features
from ncjax.theory import collapse
from ncjax.training import measure


def definitions() -> dict[str, dict[str, str]]:
    """{metric: {"what": ..., "at collapse": ..., "source": ...}}."""
    found = {}
    for module in (measure, collapse, features):
        found |= _table(module.__doc__)
    return found


def _table(text: str) -> dict[str, dict[str, str]]:
    lines = [line.rstrip()[1:-1] + " " for line in text.splitlines() if line.startswith("| ")]
    found, suffixes = {}, ("",)
    for line in lines:
        # a cell may hold ||x||, so cells are parted by bars with spaces on both sides
        keys, *cells = (cell.strip() for cell in re.split(r"(?<= )\|(?= )", line))
        if keys.startswith("key"):  # a header, which may say that every key stands for two
            suffixes = ("_means", "_frame") if "`_means` or `_frame`" in keys else ("",)
            continue
        row = dict(zip(("what", "at collapse", "source"), cells, strict=True))
        found |= {key + suffix: row for key in keys.split(", ") for suffix in suffixes}
    return found
