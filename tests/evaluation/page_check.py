"""Reads a report the way a browser would: elements, attributes, and whether anything in it could act or fetch."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "use", "path", "rect"}


@dataclass
class Page(HTMLParser):
    """What a report holds."""

    html: str
    tags: dict[str, int] = field(default_factory=dict)
    handlers: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    images_without_alt: int = 0
    plots_without_label: int = 0
    security_policy: str = ""
    text: str = ""
    open: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.handlers += [f"{tag} {name}" for name in values if name.startswith("on")]
        self.links += [
            values[n] or "" for n in ("href", "src", "xlink:href", "action", "data", "srcset") if n in values
        ]
        self.images_without_alt += tag == "img" and not values.get("alt")
        self.plots_without_label += tag == "svg" and not values.get("aria-label")
        if tag == "meta" and values.get("http-equiv", "").lower() == "content-security-policy":
            self.security_policy = values["content"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    @property
    def external_links(self) -> list[str]:
        """Return every address that is neither a place on the page nor embedded data."""
        fetched = re.findall(r"url\(([^)]*)\)|@import", self.html)
        return [link for link in [*self.links, *fetched] if not link.startswith(("#", "data:image/"))]


def assert_harmless(page: Page) -> None:
    """Fail where anything on the page could act, fetch, or escape its element."""
    assert 0 == page.tags.get("script", 0)
    assert 1 == page.tags["style"]
    assert {} == {t: n for t, n in page.tags.items() if t in ("iframe", "object", "embed", "form", "base", "link")}
    assert [] == page.handlers
    assert [] == page.external_links
    assert 0 == page.images_without_alt
    assert 0 == page.plots_without_label
    assert [] == page.unbalanced
    assert [] == page.open
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" == page.security_policy
