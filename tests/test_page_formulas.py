r"""Formulas of the page: what is one, what is drawn of it, and that all else stays the text that it is."""

import base64
import gzip
import json
from typing import Any

import pytest

from stages.lib.page.formulas import MOST, Tree, formulas, with_formulas
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
        r"\(20% \times 50 = 10\)",
        r"\(\sin \theta \cos \phi\)",
        r"\[\begin{array}{cc} a & b \\ 12 & 34 \end{array}\]",
        "$2x+3$",
        "$$2 + 1 + 4 = 7$$",
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
        "He gives $150*12=$<<150*12=1800>>1800",
        "$5-10$ or $5->$a, |$5|3|$| and $5k–$x, from 5$ to 6$, or 7$",
        "$$5 and then $$6",
        r"`\(a\)` and `$x$`",
        "```sh\nA=$(ls)\nB=$x$y\n```",
        "```\nnever closed \\(x\\)",
        r"cp $f $d/$f; echo $$ ; kill $$; $x=$y+1; awk '{print $1,$NF}'",
        r"\[link\](http://x) and \[1\]",
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
        r"\(\cancel{5} 6\)",
        r"\(\phantom{secret} x\)",
        r"\(\rlap{18}20\)",
        r"\(\newcommand{\a}{18} x\)",
        r"\(\mathchoice{1}{2}{3}{4}\)",
        r"\(\hspace{9999em}x\)",
        r"\[\begin{array}{c|c} a & b \\ \hline c & d \end{array}\]",
        r"\(a & b\)",
        r"\(\text{&lt;b&gt;}\)",
        "\\(שלום\\)",
        "\\(राम\\)",
        r"\[Therefore the total cost is 5 dollars\]",
        r"\(x = 5 and y = 3\)",
        r"\(3 4/5\)",
        r"\(" + "+".join("abcdefghij" * 5) + r"\)",
        "\\(" + "{" * 900 + "x" + "}" * 900 + "\\)",
        "\\(" + "x+" * 2000 + "x\\)",
        "\\(" + "\\sqrt{" * 70 + "x" + "}" * 70 + "\\)",
    ],
)
def test_what_is_no_plain_formula_stays_text(formula: str) -> None:
    assert drawn(formula) == []
    assert with_formulas(formula).unescape() == formula


def test_text_in_a_formula_is_text() -> None:
    html = str(with_formulas(r"\(a<b \text{<script>alert(1)</script>}\)"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<math") == 1
    assert "mathcolor" not in with_formulas(f"\\({RED}\\)")


def test_a_per_cent_sign_hides_nothing() -> None:
    (formula,) = formulas(r"\[ x = 5 % of \text{all 8%}" + "\n+ 3 \\]")
    assert texts(formula.tree).replace("\u00a0", " ") == "x=5%ofall 8%+3"


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
    assert len(formulas(text)) in (0, MOST)


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
