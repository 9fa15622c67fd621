"""What every HTML page has in common: one self-contained file of sections, cards, remarks and charts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxppo.page.style import CSS
from jaxppo.page.tables import esc

# Nothing may be loaded from anywhere, whatever the data holds.
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
DOT = " \u00b7 "


@dataclass(frozen=True)
class Card:
    """One key figure."""

    label: str
    value: str
    note: str
    tone: str = ""
    """good, bad, caution, or nothing."""


@dataclass(frozen=True)
class Remark:
    """A sentence with its colour: the verdict or a warning."""

    tone: str
    title: str
    text: str


class Section(NamedTuple):
    """One section of a page."""

    anchor: str
    heading: str  # plain text
    body: str  # HTML


def document(title: str, top: str, sections: Sequence[Section], footer: str) -> str:
    """The page as text.

    Args:
      title: plain text.
      top: HTML above the links to the sections.
      sections: in their order.
      footer: plain text.
    """
    body = "".join(_section(section) for section in sections)
    links = "".join(f'<a href="#{s.anchor}">{esc(s.heading)}</a>' for s in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{top}<nav>{links}</nav>{body}<footer>{esc(footer)}</footer></main></body></html>\n"
    )


def _section(section: Section) -> str:
    return f'<section id="{section.anchor}"><h2>{esc(section.heading)}</h2>{section.body}</section>'


def cards(found: Sequence[Card]) -> str:
    """Key figures as boxes; nothing where there are none."""
    boxes = "".join(
        f'<div class="card"><div class="label">{esc(card.label)}</div>'
        f'<div class="value {card.tone}">{esc(card.value)}</div><div class="note">{esc(card.note)}</div></div>'
        for card in found
    )
    return f'<div class="cards">{boxes}</div>' if found else ""


def remark_list(found: Sequence[Remark]) -> str:
    """Remarks as a list, each in its colour."""
    items = "".join(f'<li class="{f.tone}"><b>{esc(f.title)}.</b><span>{esc(f.text)}</span></li>' for f in found)
    return f'<ul class="warnings">{items}</ul>'


def figure(images: Mapping[str, bytes], name: str, alt: str, caption: str, missing: str) -> str:
    """A chart by its name among `images`, or a plain text that says why there is none."""
    if name not in images:
        return f'<p class="muted">{esc(missing)}</p>' if missing else ""
    data = base64.b64encode(images[name]).decode("ascii")
    picture = f'<img alt="{esc(alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>{picture}<figcaption>{esc(caption)}</figcaption></figure>"
