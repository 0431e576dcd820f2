"""Names of images in a Dockerfile: name, tag and digest of `host:5000/name:tag@digest`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DISTRIBUTIONS: Final = frozenset(
    {"ubuntu", "debian", "centos", "fedora", "rockylinux", "almalinux", "oraclelinux", "amazonlinux", "openeuler", "leap"}
)


@dataclass(frozen=True, slots=True)
class ImageName:
    """The parts as written; "" where there is none."""

    name: str
    tag: str
    digest: str


def split_image(text: str) -> ImageName:
    """Split a reference; a colon before the last slash is a port, not a tag."""
    rest, _, digest = text.partition("@")
    folder, slash, last = rest.rpartition("/")
    name, _, tag = last.partition(":")
    return ImageName(folder + slash + name, tag, digest)
