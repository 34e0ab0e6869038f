"""Markup as values: text is escaped because it is text, never because somebody thought of it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset(("br", "img", "meta", "col"))


class Html(str):
    """Markup. Any other string is text and is escaped where it is put into an element."""

    __slots__ = ()


Child: TypeAlias = "Html | str | Iterable[Child] | None"
"""Nothing, text, markup or several of them."""


def element(name: str, *children: Child, **attributes: str | float | None) -> Html:
    """<name attributes>children</name>.

    Attributes that are None are left out; ``class_`` and ``aria_label`` become ``class``, ``aria-label``.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Child) -> Html:
    """One after the other."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return Html(escape(children, quote=False))
    return Html("".join(join(child) for child in children))


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 3):g}"


# ------------------------------------------------------------------------------------- pieces


def section(title: str, *children: Child, name: str) -> Html:
    """A part of the page with its heading, to be linked to as ``#name``."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def table(
    caption: str, header: Iterable[Child], rows: Iterable[Iterable[Child]], *, name: str | None = None
) -> Html:
    """A table whose first column names its rows and whose other columns are figures; it scrolls alone."""
    head = element("tr", [element("th", cell, scope="col") for cell in header])
    body = []
    for row in rows:
        first, *cells = row
        body.append(element("tr", element("th", first, scope="row"), [element("td", c) for c in cells]))
    inner = element(
        "table", element("caption", caption), element("thead", head), element("tbody", body), id=name
    )
    return scrolling(inner, caption)


def scrolling(inner: Html, label: str) -> Html:
    """What may be wider than the screen, in a box of its own that the keyboard can scroll, too."""
    return element("div", inner, class_="scroll", role="region", aria_label=label, tabindex="0")


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and what there is to say of each; those without anything are left out."""
    entries = [element("div", element("dt", name), element("dd", value)) for name, value in pairs if value]
    return element("dl", entries)
