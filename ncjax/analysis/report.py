"""One self-contained HTML page: tables, figures, settings, definitions. A template, no JavaScript."""

import base64
import html
import math
from pathlib import Path
from typing import NamedTuple

from ncjax.store.records import write_bytes

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1.5rem; color: #222; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
nav a { margin-right: 1.2rem; } a { color: #0072B2; text-decoration: none; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; margin: .6rem 0 1rem; }
th, td { padding: .22rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th { border-bottom: 2px solid #999; } th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.long { white-space: normal; min-width: 18rem; } figure { margin: 1.2rem 1rem 1.2rem 0; display: inline-block;
vertical-align: top; } img { max-width: 100%; }
figcaption, .note { color: #555; font-size: .88rem; } .finding { font-size: 1.08rem; background: #f4f8fb;
padding: .8rem 1.1rem; border-left: 4px solid #0072B2; } code { font-size: .9em; }
"""
LONG_TEXT = 40  # characters from which a cell may wrap
SHARPNESS = 2  # pixels of a picture to one of the page


class Figure(NamedTuple):
    """A picture and what it shows."""

    path: Path  # a PNG
    caption: str


class Section(NamedTuple):
    """A heading with text, a table (rows of equal keys) and figures, each of which may be empty."""

    heading: str
    text: str = ""
    table: tuple[dict, ...] | list[dict] = ()
    figures: tuple[Figure, ...] = ()
    note: str = ""
    finding: str = ""


def write_report(path: Path, title: str, sections: list[Section]) -> None:
    """Write the page; pictures are embedded, so the file can be sent by itself."""
    links = "".join(f'<a href="#s{index}">{html.escape(part.heading)}</a>' for index, part in enumerate(sections))
    body = "\n".join(_section(index, part) for index, part in enumerate(sections))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}\n</body></html>\n"
    )
    write_bytes(path, page.encode())


def cell_text(value) -> str:
    """A value as people read it: four significant digits, a dash for what is undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _section(index: int, part: Section) -> str:
    parts = [f'<h2 id="s{index}">{html.escape(part.heading)}</h2>']
    parts += [f'<p class="finding">{html.escape(part.finding)}</p>'] if part.finding else []
    parts += [f"<p>{html.escape(part.text)}</p>"] if part.text else []
    parts += [_table(part.table)] if part.table else []
    parts += [f'<p class="note">{html.escape(part.note)}</p>'] if part.note else []
    return "\n".join(parts + [_figure(figure) for figure in part.figures])


def _table(rows) -> str:
    head = "".join(
        f"<th{_kind(value)}>{html.escape(str(key).replace('_', ' '))}</th>" for key, value in rows[0].items()
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _cell(value) -> str:
    text = cell_text(value)
    kind = " class='text long'" if len(text) > LONG_TEXT else _kind(value)
    return f"<td{kind}>{html.escape(text)}</td>"


def _kind(value) -> str:
    """Words stand on the left of a column, numbers, formatted or not, on the right."""
    number = not isinstance(value, str) or value.lstrip("+-").replace(".", "", 1)[:1].isdigit()
    return "" if number else " class='text'"


def _figure(figure: Figure) -> str:
    content = base64.b64encode(figure.path.read_bytes()).decode()
    caption = html.escape(figure.caption)
    image = f'<img width="{_shown_width(figure.path)}" src="data:image/png;base64,{content}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _shown_width(path: Path) -> int:
    """Half the picture's own width, which stands in the first bytes of a PNG."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(20)[16:20], "big") // SHARPNESS
