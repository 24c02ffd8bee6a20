r"""Formulas of the page: what is one, what is drawn of it, and that all else stays the text that it is."""

import base64
import gzip
import json
from typing import Any

import pytest

from stages.lib.page.formulas import Tree, formulas, with_formulas
from stages.lib.page.packing import pack
from stages.lib.page.rows import Sources, entries
from tests.test_report import evaluated

RED = r"\color{red}{x}"


def drawn(text: str) -> list[str]:
    return [text[formula.start : formula.end] for formula in formulas(text)]


@pytest.mark.parametrize(
    "formula",
    [
        r"\(\frac{14}{3}\)",
        "\\[\n2 + \\frac{5}{3} + 1\n\\]",
        "$$x^2$$",
        "$x$",
        r"$\boxed{\frac{14}{3}}$",
        r"$|AB| \cdot |AC| \cdot cos\theta$",
        r"\(y = 3 \text{ apples for \$5}\)",
        r"\[\begin{pmatrix} 1 & 2 \\[2pt] 3 & 4 \end{pmatrix}\]",
        r"\[\begin{align*} a &= b \\ c &= d \end{align*}\]",
        f"\\({RED}\\)",
    ],
)
def test_a_formula_is_drawn_whatever_stands_round_it(formula: str) -> None:
    assert drawn(f"So 𝟜 {formula}, which is $5 and not $6.") == [formula]


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and then $10.",
        "**$18** and **$20**",
        "between US$5 and US$x, and they agree",
        "$<<9*2=18>>18 every day, which is $9",
        "$5元，然后$",
        "a price of 5$ or 6$ each",
        "an opening $ x$ with a space",
        "$x and\n\nanother paragraph$",
        r"\(never closed, \(twice",
        r"\\(a line break\\)",
        r"\(\)",
        "$$$$",
    ],
)
def test_amounts_of_money_and_loose_delimiters_stay_text(text: str) -> None:
    assert drawn(text) == []
    assert with_formulas(text).unescape() == text


@pytest.mark.parametrize(
    "formula",
    [
        r"\(\href{javascript:alert(1)}{x}\)",
        r"\(\style{position:fixed}{x}\)",
        r"\(\class{mark}{x}\)",
        r"\(\unknown{x}\)",
        r"\(\frac{1}\)",
        r"\(x^\)",
        r"\({x\)",
        "\\(x \\text{\u202eback}\\)",
        "\\(" + "{" * 900 + "x" + "}" * 900 + "\\)",
        "\\(" + "x+" * 2000 + "x\\)",
        "\\(" + "\\sqrt{" * 70 + "x" + "}" * 70 + "\\)",
    ],
)
def test_what_is_no_plain_formula_stays_text(formula: str) -> None:
    assert drawn(formula) == []
    assert with_formulas(formula).unescape() == formula


def test_text_in_a_formula_is_text() -> None:
    html = str(with_formulas(r"\(a<b \text{<script>alert(1)</script>} & \)"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<math") == 1
    assert "mathcolor" not in with_formulas(f"\\({RED}\\)")


def test_a_line_break_with_a_height_is_a_line_break() -> None:
    (formula,) = formulas(r"\[\begin{array}{c} a \\[2pt] c \end{array}\]")
    rows = [tree for tree in walked(formula.tree) if tree[0] == "mtr"]
    assert [texts(row) for row in rows] == ["a", "c"]


@pytest.mark.parametrize(
    "text",
    ["\\[" * 500_000, "$" * 1_000_000, "$x" * 400_000, "{" * 1_000_000, "\\(" + "{" * 1_000_000 + "\\)"],
    ids=["opening", "dollars", "pairs", "braces", "long"],
)
@pytest.mark.timeout(60)
def test_a_large_hostile_text_takes_no_more_than_reading_it(text: str) -> None:
    assert len(formulas(text)) in (0, 200_000)


def test_the_page_s_rows_name_their_formulas_by_number_each_of_which_is_there_once() -> None:
    text = r"𝟜 so \(x^2\) and \(x^2\), \(y\)"
    rows = [evaluated(index, True, "gsm8k", question=r"What is $x^2$?", response=text) for index in range(2)]
    packed = pack(entries(Sources([], [], [], [], [], [], [], {"base": rows})), 20)
    lines = [line for chunk in packed.chunks for line in json.loads(gzip.decompress(base64.b64decode(chunk)))]
    trees = {line["f"]: line["tree"] for line in lines if "tree" in line}
    assert sorted(texts(tree) for tree in trees.values()) == ["x2", "y"]
    answers = [line for line in lines if "kind" in line]
    assert len(answers) == 2
    for answer in answers:
        units = text.encode("utf-16-le")
        shown = [
            (units[2 * start : 2 * end].decode("utf-16-le"), texts(trees[number]))
            for start, end, number in triples(answer["formulas"]["text"])
        ]
        assert shown == [(r"\(x^2\)", "x2"), (r"\(x^2\)", "x2"), (r"\(y\)", "y")]
    questions = [line for line in lines if "question" in line]
    assert [texts(trees[number]) for each in questions for _, _, number in triples(each["formulas"]["question"])] == [
        "x2",
        "x2",
    ]


def triples(flat: list[int]) -> list[tuple[int, int, int]]:
    return list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))


def walked(tree: Tree) -> list[Tree]:
    return [tree, *(inner for part in tree if isinstance(part, list) for inner in walked(part))]


def texts(tree: Tree) -> str:
    found: Any = (part if isinstance(part, str) else texts(part) for part in tree[1:] if not isinstance(part, dict))
    return "".join(found)
