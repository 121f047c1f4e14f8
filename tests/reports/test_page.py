import base64
from html.parser import HTMLParser

from branchy.reports.page import page
from branchy.reports.tables import Table

PNG = b"\x89PNG\r\n\x1a\n-content"
TABLE = Table("Who <won>", "a & b", ("run", "right"), (("<script>", "97 %"), ("  indented", "-")), left=1)


class Reader(HTMLParser):
    """Checks that every tag is closed in order, and keeps what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read() -> Reader:
    reader = Reader()
    reader.feed(page("Title", "about it", {"Latency": ("how fast", PNG)}, [TABLE]))
    reader.close()
    return reader


def test_a_page_is_whole_html():
    reader = read()
    assert reader.open == []
    assert {"html", "head", "title", "body", "table", "th", "td", "img"} <= reader.tags


def test_a_page_holds_everything_and_loads_nothing_from_elsewhere():
    (source,) = read().sources
    assert source == "data:image/png;base64," + base64.b64encode(PNG).decode()


def test_what_comes_from_results_files_is_text_and_no_markup():
    reader = read()
    assert "script" not in reader.tags
    for text in ("<script>", "Who <won>", "a & b", "97 %", "Title", "how fast"):
        assert text in reader.texts
