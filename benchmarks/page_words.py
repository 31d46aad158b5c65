"""Count the words of a page that a reader sees before opening a fold, and those of the whole page.

python benchmarks/page_words.py results/studies/digits/study.html [more pages]

Text, tables and labels of plots count; a word is anything between spaces, so a number is one too. A closed <details>
counts with its summary alone. Scripts, styles, hover texts and the phone's version of a plot do not count.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path

VOID = frozenset(["meta", "link", "img", "br", "hr", "input", "use", "path", "line", "circle", "rect"])
SILENT = frozenset(["head", "style", "script", "title", "defs", "metadata"])


class _Unfolded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append((tag, self._kind(tag, dict(attrs))))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            while self.open and self.open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._visible():
            self.words += data.split()

    @staticmethod
    def _kind(tag: str, attrs: dict[str, str | None]) -> str:
        if tag in SILENT or "on-phone" in (attrs.get("class") or "") or "choose" in (attrs.get("class") or ""):
            return "silent"
        if tag == "details":
            return "shown" if "open" in attrs else "folded"
        return "summary" if tag == "summary" else "shown"

    def _visible(self) -> bool:
        kinds = [kind for _, kind in self.open]
        if "silent" in kinds:
            return False
        folds = [k for k, kind in enumerate(kinds) if kind == "folded"]
        return not folds or (folds == folds[-1:] and kinds[folds[0] + 1 : folds[0] + 2] == ["summary"])


def unfolded_words(html: str) -> int:
    """Number of words outside closed folds."""
    page = _Unfolded()
    page.feed(html)
    return len(page.words)


if __name__ == "__main__":
    print("unfolded   total  page")
    for path in sys.argv[1:]:
        html = Path(path).read_text(encoding="utf-8")
        print(f"{unfolded_words(html):>8,} {unfolded_words(html.replace('<details', '<details open')):>7,}  {path}")
