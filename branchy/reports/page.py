"""A report as one HTML page with everything in it: it can be sent as a file and opened anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from branchy.reports.tables import Table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem; }
p { color: #555; margin: .2rem 0 .8rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 2px solid #999; font-weight: 600; }
.word { text-align: left; }
td.word:first-child { white-space: pre; }
"""


def page(title: str, about: str, plots: Mapping[str, tuple[str, bytes]], tables: Sequence[Table]) -> str:
    """The page.

    Args:
        title: its heading.
        about: a line under it.
        plots: by heading: a line that explains, and a PNG.
        tables: after the plots.
    """
    parts = [f"<h1>{escape(title)}</h1>\n<p>{escape(about)}</p>"]
    parts += [_section(heading, text, _image(heading, png)) for heading, (text, png) in plots.items()]
    parts += [_section(table.heading, table.about, _table(table)) for table in tables]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _section(heading: str, text: str, content: str) -> str:
    return f'<h2>{escape(heading)}</h2>\n<p>{escape(text)}</p>\n<div class="wide">{content}</div>'


def _image(heading: str, png: bytes) -> str:
    return f'<img alt="{escape(heading)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(table: Table) -> str:
    rows = [_line("th", table.header, table.left)]
    rows += [_line("td", cells, table.left) for cells in table.rows]
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _line(tag: str, cells: Sequence[str], left: int) -> str:
    opens = [f'<{tag} class="word">' if number < left else f"<{tag}>" for number in range(len(cells))]
    return "<tr>" + "".join(f"{o}{escape(cell)}</{tag}>" for o, cell in zip(opens, cells, strict=True)) + "</tr>"
