r"""Formulas in LaTeX as MathML, which a browser draws by itself.

    formulas(r"so \(x = \frac12\)")   → [Formula(start=3, end=17, tree=["math", ["mi", "x"], ["mo", "="], …])]
    with_formulas(…)                  → the text as HTML, with its formulas drawn

A formula stands in ``\(…\)``, ``\[…\]``, ``$$…$$`` or ``$…$``; of dollars that may be money, none is one. What
latex2mathml does not read, or what holds more than plain formulas do, stays the text that it is.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

if TYPE_CHECKING:
    from markupsafe import Markup

Tree = list[Any]  # an element: its name, then its attributes where it has some, then its texts and elements

LONGEST = 2000  # characters; a longer one is cut off, or no formula
LARGEST = 2000  # elements
DEEPEST = 60
CLOSING = {r"\(": r"\)", r"\[": r"\]", "$$": "$$", "$": "$"}
DISPLAYED = (r"\[", "$$")
DELIMITER = re.compile(r"\\\\|\\[()\[\]$]|\$\$?")
# between dollars and without a command: an amount of money and what is said of it
PROSE = re.compile(r"[A-Za-z]{3,}|[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff]")
ESCAPED = re.compile(r"\\([$%&#_{}])")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
COMMAND = re.compile(r"\\[A-Za-z]")
LINE_BREAK = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]")  # with a height, which latex2mathml does not read
# characters that hide or reorder text, and a command that latex2mathml did not know, which it gives as a name
NOT_DRAWN = re.compile(
    r"[\\\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)

# fmt: off
TAGS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "mstyle", "mpadded", "mphantom",
    "menclose", "msub", "msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd",
}
# none that leads elsewhere or styles: latex2mathml writes \href, \style and \class as given
ATTRIBUTES = {
    "accent", "columnalign", "columnlines", "depth", "displaystyle", "fence", "form", "height", "linethickness",
    "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowlines", "scriptlevel", "separator",
    "stretchy", "width",
}
CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
IGNORED = {"columnspacing", "display", "lspace", "mathcolor", "rowspacing", "rspace", "xmlns"}
# fmt: on


@dataclass(frozen=True)
class Formula:
    """A formula in a text, with its delimiters from ``start`` to ``end`` (characters), and its MathML."""

    start: int
    end: int
    tree: Tree


def formulas(text: str) -> list[Formula]:
    """The formulas of a text that can be drawn."""
    if "$" not in text and "\\" not in text:
        return []
    found = ((start, end, _tree(source, displayed)) for start, end, source, displayed in _found(text))
    return [Formula(start, end, tree) for start, end, tree in found if tree]


def with_formulas(text: str) -> "Markup":
    """The text as HTML: its formulas as MathML, all else escaped."""
    from markupsafe import Markup, escape

    parts, at = [], 0
    for formula in formulas(text):
        parts += [escape(text[at : formula.start]), _html(formula.tree, text[formula.start : formula.end])]
        at = formula.end
    return Markup("").join([*parts, escape(text[at:])])


def _found(text: str) -> Iterator[tuple[int, int, str, bool]]:
    """Start and end of what stands between delimiters, what it is, and whether it has lines of its own.

    One pass: an opening delimiter without its closing one costs nothing.
    """
    opening: re.Match[str] | None = None
    for match in DELIMITER.finditer(text):
        if opening and match.start() - opening.end() > LONGEST:
            opening = None
        if opening and match[0] == CLOSING[opening[0]]:
            source = text[opening.end() : match.start()]
            if source.strip() and (match[0] != "$" or _is_formula(source, text[match.end() : match.end() + 1])):
                yield opening.start(), match.end(), source, opening[0] in DISPLAYED
                opening = None
                continue
            opening = None
        if match[0] in CLOSING and (opening is None or opening[0] == "$"):
            opening = match


def _is_formula(source: str, following: str) -> bool:
    """Whether what stands between two dollars is no amount of money: pandoc's rule, and no words without a command."""
    if source[0].isspace() or source[-1].isspace() or following.isdigit() or "\n\n" in source:
        return False
    return bool(COMMAND.search(source)) or not PROSE.search(source)


@lru_cache(maxsize=10_000)
def _tree(source: str, displayed: bool) -> Tree | None:
    """The MathML of a formula; None where it cannot be drawn."""
    from latex2mathml.converter import convert_to_element

    braces = BRACE.findall(source)  # latex2mathml leaves a loose one out
    if braces.count("{") != braces.count("}"):
        return None
    try:
        tree = _element(convert_to_element(LINE_BREAK.sub(r"\\\\", source)), 0)
        _check_size(tree)
    except Exception:  # whatever latex2mathml raises at a text that is no LaTeX, a RecursionError too
        return None
    inside = [part for part in tree[1:] if not isinstance(part, dict)]
    return ["math", {"display": "block"}, *inside] if displayed else ["math", *inside]


def _element(element: Element, depth: int) -> Tree:
    """An element with all in it; ValueError where it is none of a plain formula."""
    if element.tag not in TAGS or depth > DEEPEST:
        raise ValueError(element.tag)
    text = ESCAPED.sub(r"\1", html.unescape(element.text or ""))
    if NOT_DRAWN.search(text):
        raise ValueError(text)
    given = {name: value for name, value in element.attrib.items() if name not in IGNORED}
    inside = [_element(child, depth + 1) for child in element]
    if not given.keys() <= ATTRIBUTES or len(inside) != CHILDREN.get(element.tag, len(inside)):
        raise ValueError(element.tag)
    if element.tag == "mrow" and len(inside) == 1 and not given:
        return inside[0]
    return [element.tag, *([given] if given else []), *([text] if text else []), *inside]


def _check_size(tree: Tree) -> None:
    elements = [tree]
    for element in elements:
        elements += [part for part in element if isinstance(part, list)]
        if len(elements) > LARGEST:
            raise ValueError("too large")


def _html(tree: Tree, source: str | None = None) -> "Markup":
    """An element as HTML; ``source`` is what its title says."""
    from markupsafe import Markup, escape

    name, *parts = tree
    attributes = parts.pop(0) if parts and isinstance(parts[0], dict) else {}
    given = attributes | ({"title": source} if source else {})
    written = Markup("").join(Markup(' {}="{}"').format(Markup(key), value) for key, value in given.items())
    inside = Markup("").join(escape(part) if isinstance(part, str) else _html(part) for part in parts)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inside)
