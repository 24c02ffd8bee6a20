r"""Formulas in LaTeX as MathML, which a browser draws by itself.

    formulas(r"so \(x = \frac12\)")   → [Formula(start=3, end=17, tree=["math", ["mi", "x"], ["mo", "="], …])]
    with_formulas(…)                  → the text as HTML, with its formulas drawn

A formula stands in ``\(…\)``, ``\[…\]``, ``$$…$$`` or ``$…$``, and not in code. Whoever reads an answer must see what
the model wrote, so what would be drawn otherwise than it reads stays the text that it is: amounts of money, words and
numbers whose space LaTeX would drop, letters that join, strokes that browsers do not draw, what is hidden or defined.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

if TYPE_CHECKING:
    from markupsafe import Markup

Tree = list[Any]  # an element: its name, then its attributes where it has some, then its texts and elements

LONGEST = 2000  # characters; a longer one is cut off, or no formula
MOST = 2000  # formulas of a text, the first ones
LARGEST = 2000  # elements
DEEPEST = 60
WIDEST = 80  # characters in a row: MathML has no line breaks
WIDEST_SPACE_EM = 3.0
CLOSING = {r"\(": r"\)", r"\[": r"\]", "$$": "$$", "$": "$"}
DISPLAYED = (r"\[", "$$")
# code in backquotes, a line break, an escaped dollar; the delimiters
TOKEN = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|\\\\|\\[()\[\]$]|\$\$?", re.DOTALL)

COMMAND = re.compile(r"\\[A-Za-z]")
DEFINING = re.compile(r"\\(?:def|let|newcommand|renewcommand|providecommand|mathchoice)\b|&#?\w+;")
# between dollars and without a command: an amount of money and what is said of it
PROSE = re.compile(r"[A-Za-z]{3,}|[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff]")
LOOSE = re.compile(r"^[\s,.;:]|[\s=+\-–*/,(<>|]$")
VARIABLE = re.compile(r"[A-Za-z^_]")
# latex2mathml reads % as the start of a comment, and no height of a line break
PERCENT = re.compile(r"\\.|%", re.DOTALL)
LINE_BREAK = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]")
ESCAPED = re.compile(r"\\([$%&#_{}])")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# a text in a formula, a command, a small index: none loses its spaces
KEEPS_SPACES = re.compile(
    r"\\(?:text|mbox|hbox|textrm|textbf|textit|operatorname)\*?\s*\{[^{}]*\}|\\[A-Za-z]+|\\.|[_^]\w"
)
LOSES_SPACES = re.compile(r"[A-Za-z]{2}\s+[A-Za-z0-9]|[A-Za-z0-9]\s+[A-Za-z]{2}|\d\s+\d")
# characters that hide, join or reorder text, and a command that latex2mathml did not know, which it gives as a name
NOT_DRAWN = re.compile(
    r"[\\\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe0f\ufeff\U000e0000-\U000e007f"
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)

# fmt: off
TAGS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "mstyle", "menclose",
    "msub", "msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd",
}
# none that leads elsewhere or styles: latex2mathml writes \href, \style and \class as given
ATTRIBUTES = {
    "accent", "columnalign", "depth", "displaystyle", "fence", "form", "height", "linethickness",
    "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "scriptlevel", "separator",
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
    """The formulas of a text that can be drawn, at most the first ``MOST``."""
    if "$" not in text and "\\" not in text:
        return []
    found = ((start, end, _tree(source, displayed)) for start, end, source, displayed in islice(_found(text), MOST))
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
    for match in TOKEN.finditer(text):
        if match[0].startswith("`") or (opening and match.start() - opening.end() > LONGEST):
            opening = None
        if opening and match[0] == CLOSING[opening[0]]:
            source = text[opening.end() : match.start()]
            if _is_formula(opening[0], source, text[match.end() : match.end() + 1]):
                yield opening.start(), match.end(), source, opening[0] in DISPLAYED
                opening = None
                continue
            opening = None
        if match[0] in CLOSING and (opening is None or opening[0] == "$"):
            opening = match


def _is_formula(delimiter: str, source: str, following: str) -> bool:
    """Whether this is a formula: between dollars no amount of money, in brackets no link or number of Markdown.

    The rules for one dollar are pandoc's and, without a command of LaTeX, a variable and no words.
    """
    if not source.strip():
        return False
    if delimiter == r"\[":
        return following != "(" and not source.strip().isdigit()
    if delimiter == r"\(" or COMMAND.search(source):
        return delimiter != "$" or not (source[0].isspace() or source[-1].isspace() or following.isdigit())
    if PROSE.search(source):
        return False
    plain = following.isdigit() or following == "<" or LOOSE.search(source) or not VARIABLE.search(source)
    return delimiter == "$$" or not plain


@lru_cache(maxsize=10_000)
def _tree(source: str, displayed: bool) -> Tree | None:
    """The MathML of a formula; None where it cannot be drawn."""
    from latex2mathml.converter import convert_to_element

    braces = BRACE.findall(source)  # latex2mathml leaves a loose one out
    if braces.count("{") != braces.count("}") or DEFINING.search(source):
        return None
    if LOSES_SPACES.search(KEEPS_SPACES.sub(";", source)):
        return None
    written = PERCENT.sub(lambda found: r"\%" if found[0] == "%" else found[0], LINE_BREAK.sub(r"\\\\", source))
    try:
        tree = _element(convert_to_element(written), 0)
        _check_size(tree)
    except Exception:  # whatever latex2mathml raises at a text that is no LaTeX, a RecursionError too
        return None
    inside = [part for part in tree[1:] if not isinstance(part, dict)]
    return ["math", {"display": "block"}, *inside] if displayed else ["math", *inside]


def _element(element: Element, depth: int) -> Tree:
    """An element with all in it; ValueError where it is none of a plain formula."""
    text = ESCAPED.sub(r"\1", html.unescape(element.text or ""))
    given = {name: value for name, value in element.attrib.items() if name not in IGNORED}
    inside = [_element(child, depth + 1) for child in element]
    if (
        element.tag not in TAGS
        or depth > DEEPEST
        or not given.keys() <= ATTRIBUTES
        or len(inside) != CHILDREN.get(element.tag, len(inside))
        or NOT_DRAWN.search(text)
        or (element.tag in ("mi", "mo") and (text == "&" or any(map(_joins, text))))
        or (element.tag == "menclose" and given.get("notation") != "box")
        or (element.tag == "mspace" and abs(float(given.get("width", "0").removesuffix("em"))) > WIDEST_SPACE_EM)
    ):
        raise ValueError(element.tag)
    if element.tag == "mrow" and len(inside) == 1 and not given:
        return inside[0]
    return [element.tag, *([given] if given else []), *([text] if text else []), *inside]


def _joins(character: str) -> bool:
    """Whether a character is written from the right or belongs to the one before it: an element cuts it off."""
    return unicodedata.bidirectional(character) in ("R", "AL", "AN") or unicodedata.category(character).startswith("M")


def _check_size(tree: Tree) -> None:
    """ValueError where a formula is too large to draw, or too wide."""
    elements = [tree]
    for element in elements:
        elements += [part for part in element if isinstance(part, list)]
        if len(elements) > LARGEST:
            raise ValueError("too large")
    if _width(tree) > WIDEST:
        raise ValueError("too wide")


def _width(tree: Tree) -> int:
    """About how many characters wide it is."""
    inside = [_width(part) if isinstance(part, list) else len(part) for part in tree[1:] if not isinstance(part, dict)]
    return max(inside, default=0) if tree[0] in ("mtable", "mfrac", "munder", "mover", "munderover") else sum(inside)


def _html(tree: Tree, source: str | None = None) -> "Markup":
    """An element as HTML; ``source`` is what its title says."""
    from markupsafe import Markup, escape

    name, *parts = tree
    attributes = parts.pop(0) if parts and isinstance(parts[0], dict) else {}
    given = attributes | ({"title": source} if source else {})
    written = Markup("").join(Markup(' {}="{}"').format(Markup(key), value) for key, value in given.items())
    inside = Markup("").join(escape(part) if isinstance(part, str) else _html(part) for part in parts)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inside)
