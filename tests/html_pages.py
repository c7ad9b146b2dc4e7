"""Reading built HTML: what a page loads, where it links, which anchors it has."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The addresses in a page: `loads` (fetched by themselves), `links`, and its own `anchors`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.loads, self.links, self.anchors = path, [], [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        navigation = tag == "link" and found.get("rel") in ("next", "prev", "canonical")
        if (tag == "a" and found.get("href")) or navigation:
            self.links.append(found["href"])
        elif tag in ("script", "img", "link", "iframe", "source", "video", "audio"):
            self.loads += [found[key] for key in ("src", "href") if found.get(key)]


def pages(site: Path) -> dict[Path, Page]:
    """Read every page of a site."""
    return {
        path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts
    }


def is_remote(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def broken(site: Path) -> list[str]:
    """Name every local address of a site that leads to no file, or to no such anchor in it."""
    every = pages(site)
    found = []
    for path, page in every.items():
        for address in page.loads + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = every[target].anchors if target in every else None
            missing = not target.is_file()
            if missing or (anchors is not None and unquote(parts.fragment) not in anchors):
                found.append(f"{path.relative_to(site)}: {address}")
    return found
