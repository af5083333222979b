"""The report: whole, self-contained, safe."""

import re

from PIL import Image

from ncjax.analysis.report import Figure, Section, cell_text, write_report


def test_page_holds_everything_and_links_to_nothing_outside(tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(picture)
    rows = [{"family": "seed", "test_loss": 0.123456}, {"family": "a <b> & c", "test_loss": float("nan")}]
    sections = [Section("Summary", "text", rows, (Figure(picture, "what it shows"),), "note"), Section("Settings")]
    write_report(tmp_path / "report.html", "out/digits", sections)
    page = (tmp_path / "report.html").read_text()
    assert "<td class='text'>a &lt;b&gt; &amp; c</td>" in page
    assert "0.1235" in page
    assert "what it shows" in page
    assert re.findall(r'href="([^"]*)"', page) == ["#s0", "#s1"]
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert "<script" not in page


def test_cells():
    assert [cell_text(value) for value in (3, 2.0, 1e-9, float("nan"), None, "x")] == ["3", "2", "1e-09", "-", "-", "x"]
