"""Rows over cutoff_len: left out, refused or shortened, and no turn marker is ever cut off, with either trainer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stages.lib.params import load_params
from stages.lib.tokens.length import BATCH, FittingRows, cut, fitting_rows, measured, reasoning_ends
from stages.lib.trainers.openmind import tokens as openmind_tokens
from stages.lib.training import Conversation, Job, TrainingError

MARKERS = ("<think>", "</think>", "<answer>", "</answer>")
SENTENCES = [f"Step {n}: {n} plus {n} is {2 * n}." for n in range(40)]
LONG = Conversation(
    "Be brief.", "What is 2 + 2?", "<think>\n\n" + " ".join(SENTENCES) + "</think>\n\n<answer>\n\n4</answer>"
)
SHORT = replace(LONG, assistant="<think>\n\n2 + 2 = 4</think>\n\n<answer>\n\n4</answer>")


@dataclass(frozen=True)
class Letters:
    """A conversation that is measured in letters."""

    conversation: Conversation

    @property
    def tokens(self) -> int:
        return len(self.conversation.assistant)

    answer_tokens = tokens

    def fits(self, cutoff_len: int) -> bool:
        return self.tokens <= cutoff_len


def letters(conversations: list[Conversation]) -> list[Letters]:
    return [Letters(each) for each in conversations]


@pytest.fixture
def job(tiny_params: Callable[..., Path], tiny_student: Path, tmp_path: Path) -> Callable[..., Job]:
    """``job("drop", 512, LONG, SHORT)``: a training of these rows, not begun."""

    def make(on_too_long: str, cutoff_len: int, *rows: Conversation) -> Job:
        params = load_params(tiny_params({"train.on_too_long": on_too_long, "arms.filtered.cutoff_len": cutoff_len}))
        arm, markers = params.arms["filtered"], params.convert.markers
        out = tmp_path / "model"
        return Job("filtered", list(rows), tiny_student, params.train, arm, params.run, markers, out, rows=tmp_path)

    return make


def fit_of(trainer: str, job: Job, older_student: Path) -> FittingRows:
    """What a trainer would see of a job, by its own count of tokens."""
    from transformers import AutoTokenizer

    if trainer == "openmind":
        return openmind_tokens.measured_rows(
            replace(job, student=older_student), AutoTokenizer.from_pretrained(older_student)
        )
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    return fitting_rows(job, lambda conversations: measured(job, conversations, tokenizer))


@pytest.mark.parametrize("trainer", ["trl", "openmind"])
@pytest.mark.parametrize("on_too_long", ["drop", "shorten_reasoning"])
@pytest.mark.parametrize("cutoff_len", [200, 300, 500])
def test_every_row_that_is_trained_has_all_its_markers_and_fits(
    job: Callable[..., Job], older_student: Path, trainer: str, on_too_long: str, cutoff_len: int
) -> None:
    found = fit_of(trainer, job(on_too_long, cutoff_len, LONG, SHORT), older_student)
    assert found.rows + len(found.left_out) == 2
    for row in found.conversations:
        places = [row.assistant.index(marker) for marker in MARKERS]
        assert places == sorted(places)
        assert row.assistant.endswith("</think>\n\n<answer>\n\n4</answer>")
    assert found.tokens <= cutoff_len * found.rows
    assert found.shortened == (on_too_long == "shorten_reasoning")


def test_reasoning_keeps_as_many_whole_sentences_of_its_beginning_as_fit(job: Callable[..., Job]) -> None:
    for count in (1, 7, 39):
        wanted = replace(LONG, assistant=LONG.assistant.replace(" ".join(SENTENCES), " ".join(SENTENCES[:count])))
        for room in (0, 5):  # less than another sentence
            cutoff_len = len(wanted.assistant) + room
            found = fitting_rows(job("shorten_reasoning", cutoff_len, LONG), letters)
            assert [*found.conversations] == [wanted]


@pytest.mark.parametrize("place", [0, 1, BATCH, 2 * BATCH])
def test_the_shortest_of_all_rows_is_named_where_none_fits(job: Callable[..., Job], place: int) -> None:
    rows = [LONG] * (2 * BATCH + 1)
    rows[place] = SHORT
    with pytest.raises(TrainingError, match=rf"\(the shortest has {len(SHORT.assistant)}\)"):
        fitting_rows(job("drop", 9, *rows), letters)


@pytest.mark.parametrize(
    ("reasoning", "ends"),
    [
        ("\n\nOne. Two! Three", ["\n\nOne. ", "\n\nOne. Two! "]),
        ("It is 3.5 m\nlong", ["It is 3.5 m\n"]),
        ("一加一是二。三加三是六。", ["一加一是二。"]),
        ('He said "no." Then', ['He said "no." ']),
        ("without any end", []),
        ("only one. ", []),
    ],
)
def test_reasoning_may_end_after_a_line_or_a_sentence(job: Callable[..., Job], reasoning: str, ends: list[str]) -> None:
    markers = job("drop", 10, SHORT).markers
    answer = f"<think>{reasoning}</think>\n\n<answer>\n\n4</answer>"
    assert [answer[len("<think>") : end] for end in reasoning_ends(answer, markers)] == ends
    for end in reasoning_ends(answer, markers):
        shorter = cut(replace(LONG, assistant=answer), end, markers).assistant
        assert shorter.endswith("</think>\n\n<answer>\n\n4</answer>")
        assert not shorter.partition("</think>")[0][-1].isspace()


@pytest.mark.parametrize(
    "answer",
    [
        "<think>\n\nNo end of a sentence, and so on and so on</think>\n\n<answer>\n\n4</answer>",
        "One sentence. And another one, without any marker around them.",
        "<think>\n\nShort. Enough.</think>\n\n<answer>\n\n" + "4" * 200 + "</answer>",
    ],
)
def test_a_row_that_cannot_be_shortened_is_left_out_for_that_reason(job: Callable[..., Job], answer: str) -> None:
    found = fitting_rows(job("shorten_reasoning", 55, SHORT, replace(LONG, assistant=answer)), letters)
    assert [*found.conversations] == [SHORT]
    assert [(row.id, row.reason, row.assistant) for row in found.left_out] == [
        ("filtered/1", "cannot_be_shortened", answer)
    ]


def test_error_names_how_many_rows_are_too_long_and_the_first(job: Callable[..., Job]) -> None:
    with pytest.raises(TrainingError) as caught:
        fitting_rows(job("error", 100, SHORT, LONG, LONG), letters)
    line = str(caught.value)
    assert "2 of 3 conversations are longer than 100 tokens" in line
    assert f"the first filtered/1 with {len(LONG.assistant)}" in line
    assert [*fitting_rows(job("error", 100, SHORT), letters).conversations] == [SHORT]


def test_rows_that_fit_stay_as_they_are_and_in_their_order(job: Callable[..., Job]) -> None:
    rows = [replace(SHORT, user=f"question {n}") for n in range(3)]
    found = fitting_rows(job("shorten_reasoning", 100, rows[0], LONG, *rows[1:]), letters)
    shortened = [*found.conversations].pop(1)
    assert [row for row in found.conversations if row != shortened] == rows
    assert shortened.user == LONG.user
    assert (found.shortened, [*found.left_out]) == (1, [])
