"""Would a page load anything? What a browser fetches by itself when it opens an HTML text, not what waits for a click."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

_LOADING: Final = {"src", "srcset", "poster", "data", "background", "xlink:href", "formaction", "ping", "manifest", "imagesrcset"}
"""Attributes that load on any element."""
_HREF: Final = {"link", "base", "use", "image", "feimage", "script", "mpath", "textpath", "lineargradient", "pattern"}
"""Elements whose `href` loads; of others, such as `a`, it waits for a click."""
_PAINT: Final = {"fill", "stroke", "filter", "clip-path", "mask"}
"""Attributes of SVG that are CSS."""
_REFRESH: Final = re.compile(r"\s*\d*\s*;?\s*url\s*=", re.IGNORECASE)
_CSS: Final = re.compile(r"""@import\s+(?:url\()?\s*["']?([^"'\s);]+)|url\(\s*["']?([^"')]*)""", re.IGNORECASE)
_INSIDE: Final = re.compile(r"\s*(?:data:|#|$)", re.IGNORECASE)


def loads(html: str) -> list[str]:
    """What the page would load, as `element attribute=address`; empty when all is inside it. `data:` and `#…` are inside."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._style = tag == "style"
        if tag in ("script", "iframe", "frame", "embed", "object", "applet"):
            self.found.append(tag)
        for name, value in attrs:
            if name == "style" or name in _PAINT:
                self._css(tag, value or "")
            elif self._fetches(tag, name, value or ""):
                self.found.append(f"{tag} {name}={value}")

    @staticmethod
    def _fetches(tag: str, name: str, value: str) -> bool:
        if name == "content":
            return _REFRESH.match(value) is not None
        return (name in _LOADING or (name == "href" and tag in _HREF)) and _INSIDE.match(value) is None

    def handle_endtag(self, tag: str) -> None:
        self._style = self._style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self._css("style", data)

    def _css(self, tag: str, text: str) -> None:
        for match in _CSS.finditer(text):
            address = match[1] or match[2] or ""
            if not _INSIDE.match(address):
                self.found.append(f"{tag} css={address}")
