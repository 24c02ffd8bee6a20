"""The preview: what it shows of a few questions, what it says of the whole, and that it takes nothing twice."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from rich.cells import cell_len
from ruamel.yaml import YAML

from stages.collect import main as collect
from stages.lib.params import load_params
from stages.lib.rows.distilled import Distilled
from stages.lib.rows.question import Turn
from stages.preview.__main__ import main
from stages.preview.chain import Trained, makers, train_texts
from stages.preview.estimate import Range, by_question, mean, share, total
from stages.preview.text import Page
from tests import public_data
from tests.distill_runner import ROOT, DistillRunner, Serve, Server, completion, good, prompted, wait_until
from tests.workspace import Workspace

PRICE = {"input": 4.0, "cached_input": 1.0, "output": 16.0}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500}  # 0.012 CNY
BOTH = {"filter.strategy": "both", "filter.judge.model": "strict", "filter.judge.kind": "embedded"}


@pytest.fixture
def few(runner: DistillRunner, tiny_student: Path) -> DistillRunner:
    """A folder to preview in: 12 sums, the tiny student."""
    runner.settings |= {
        "collect.train_size": 12,
        "collect.heldout_size": 4,
        "collect.source.max_digits": 3,  # so that no two questions are the same
        "train.student.kind": "path",
        "train.student.name": str(tiny_student),
    }
    return runner


def arguments(runner: DistillRunner, *more: object) -> list[str]:
    params = runner._project_params(runner.settings)
    return [str(word) for word in ("--params", params, "--store", runner.store, *more)]


def use(runner: DistillRunner, server: Server) -> None:
    runner.settings |= {"distill.teacher.kind": "openai_compatible", "distill.teacher.base_url": server.base_url}


def preview(runner: DistillRunner, *more: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments(runner, *more))
    assert result.exit_code == status, result.output + repr(result.exception)
    assert not list((runner.folder / ".cache").glob("preview-*"))
    return result


def parts(text: str) -> list[str]:
    """What stands under each heading: the teacher, each answer, the whole run."""
    return [part.strip("\n") for part in re.split(r"^── .* ──$", text, flags=re.MULTILINE)][1:]


def fields(part: str) -> dict[str, str]:
    """The labels of a part, and the text beside each."""
    found: dict[str, str] = {}
    label = ""
    for line in part.splitlines():
        label = line[:15].strip() or label
        found[label] = "\n".join(filter(None, [found.get(label), line[15:]]))
    return found


def run_whole(runner: DistillRunner) -> list[str]:
    """The questions of the whole run, collected and distilled by their stages."""
    paths = {name: runner.folder / f"{name}.jsonl" for name in ("questions", "heldout", "left-out", "metrics")}
    words = [str(word) for name, path in paths.items() for word in (f"--{name}", path)]
    done = CliRunner().invoke(collect, [*words, "--params", str(runner._project_params(runner.settings))])
    assert done.exit_code == 0, done.output
    runner.run()
    return [json.loads(line)["question"] for line in paths["questions"].read_text().splitlines()]


# ---- what it shows ----


def test_each_question_is_shown_from_the_prompt_to_the_trained_text(few: DistillRunner) -> None:
    _, *answers, whole = parts(preview(few, "--count", 3).stdout)
    assert len(answers) == 3
    for answer in map(fields, answers):
        sent = "\n".join(line.removeprefix("│ ") for line in answer["sent"].splitlines())
        assert sent.rstrip() == f"user:\n{prompted(answer['question'])}".rstrip()
        assert answer["settings"] == "model: chain-sum-solver"
        assert re.match(r"\d+ characters; with the answer \d+ tokens of the teacher\n│ .* = ", answer["reasoning"])
        is_right = answer["answer"] == f"│ The answer is {answer['gold']}."
        assert answer["verdict"].startswith("kept: right" if is_right else "rejected (wrong_answer): wrong")
        prompt, learned = answer["as trained"].split("with a loss (this is learned)")
        assert f"│ {answer['question']}<|im_end|>\n│ <|im_start|>assistant\n" in prompt
        assert "┃" not in prompt
        assert learned.splitlines()[1] == "┃ <think>"
        assert learned.rstrip("┃ \n").endswith(f"{answer['answer'][2:]}</answer><|im_end|>")
        shown = [int(number) for number in re.findall(r"(\d+) tokens:", answer["as trained"])]
        arms = "unfiltered, filtered" if is_right else "unfiltered"
        assert answer["tokens"] == f"{sum(shown)}, fits cutoff_len of {arms}"
    assert fields(whole)["requests"] == "12: 3 in the store, 9 to send"


def test_a_run_in_batches_is_estimated_at_their_price_and_the_preview_does_not_wait_for_one(
    few: DistillRunner, serve: Serve
) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(usage=USAGE)

    server = serve(route)  # it has no batch API
    use(few, server)
    few.set(models={"chain-sum-solver": PRICE})
    few.settings["run.batch.teacher"] = {"completion_window": "24h", "price_factor": 0.5, "max_requests": 4}
    few.settings["run.batch.teacher"] |= {"max_mb": 1, "enqueued_tokens": None, "poll_s": 1.0}
    *_, whole = parts(preview(few, "--count", 2).stdout)
    assert len(server.asked) == 2
    assert fields(whole)["cost"] == ("0.0060 CNY each; about 0.0600 CNY to come, in batches at 0.5 of the price")
    assert fields(whole)["time"].startswith("distill in batches: 3 of at most 4 requests, each within 24h; training")


def test_the_whole_run_is_estimated_with_intervals(few: DistillRunner, serve: Serve) -> None:
    few.set(models={"chain-sum-solver": PRICE}, budget=1.0, max_tokens=600)
    few.settings["distill.samples_per_question"] = 2

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(usage=USAGE | {"completion_tokens": 400 + 100 * (len(server.asked) % 2)})

    server = serve(route)
    use(few, server)
    shown = fields(parts(preview(few, "-n", 4).stdout)[-1])
    assert len(server.asked) == 8
    assert shown["questions"] == "12, 2 samples each"
    assert re.fullmatch(r"24: 8 in the store \(cost 0.0\d+ CNY, not paid again\), 16 to send", shown["requests"])
    assert shown["basis"] == "4 questions only: the brackets have 95% intervals"
    assert shown["prompt tokens"] == "1,000 each (1,000 to 1,000 seen); about 16,000 to come"
    assert re.match(r"\d\d\d each \(\d+ to \d+ seen\); about [67],\d\d\d", shown["answer tokens"])
    assert re.match(r"0\.01\d\d CNY each; about 0\.1\d\d\d CNY", shown["cost"])
    assert "at most 0.16" in shown["cost"]
    assert "run.budget is 1.00 CNY, of which 0.9" in shown["cost"]
    assert re.match(r"distill about \d+ s.*: 0\.\d+ s an answer, 4 at a time", shown["time"])
    assert shown["arm unfiltered"].startswith("about 24 ")


def test_a_failed_call_takes_one_line_and_the_others_are_shown(few: DistillRunner, serve: Serve) -> None:
    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        if content == server.asked[0]:
            return web.json_response(
                {"error": {"message": "Input data may contain\ninappropriate content."}}, status=400
            )
        return completion()

    server = serve(route)
    use(few, server)
    *_, whole = shown = parts(preview(few, "-n", 4).stdout)
    failed = [part for part in shown if "failed " in part]
    assert [fields(part)["failed"] for part in failed] == [
        "refused, status 400, 1 attempt: Input data may contain inappropriate content."
    ]
    assert sum("as trained" in part for part in shown) == 3
    assert fields(whole)["rows"].startswith("about 9 (")  # of 12


def test_a_row_over_cutoff_len_is_named_with_its_arm(few: DistillRunner) -> None:
    few.settings["arms.filtered.cutoff_len"] = 40
    _, *answers, whole = parts(preview(few, "-n", 4).stdout)
    kept = [fields(answer) for answer in answers if "kept" in answer]
    assert kept
    assert all("over cutoff_len 40 of filtered: it would be left out there" in each["tokens"] for each in kept)
    assert f"over cutoff_len 40: {len(kept)} of these {len(kept)}" in fields(whole)["arm filtered"]
    assert "no row is left to train on" in fields(whole)["arm filtered"]


def test_a_long_reasoning_is_shortened_and_whole_with_full(few: DistillRunner, serve: Serve) -> None:
    long = "Wait, let me check that again. " * 100 + "So 2."

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        return completion(reasoning_content=long)

    use(few, serve(route))
    short = preview(few, "-n", 1).stdout
    assert short.count("[… 2,705 characters not shown: --full …]") == 2  # in the reasoning, and as trained
    full = preview(few, "-n", 1, "--full").stdout
    assert "not shown" not in full
    assert full.count(long) == 2


def test_a_judge_is_asked_and_estimated(few: DistillRunner) -> None:
    few.settings |= BOTH
    few.set(models={"chain-sum-solver": PRICE, "strict": PRICE})
    _, *answers, whole = parts(preview(few, "-n", 3).stdout)
    assert all("; rule: " in fields(answer)["verdict"] for answer in answers)
    shown = fields(whole)
    assert re.match(r"strict: about 12 \(.*\) requests for about 12 \(.*\) answers", shown["judge"])
    assert "CNY each" in shown["judge cost"]
    assert shown["cost in all"].startswith("about 0.0")
    assert "; filter about" in shown["time"]


def test_a_judge_that_fails_hides_nothing_that_was_bought(
    few: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    few.settings |= {"filter.strategy": "both", "filter.judge.kind": "openai_compatible"}
    few.settings["run.api_key_variables.judge"] = "JUDGE_API_KEY"
    monkeypatch.delenv("JUDGE_API_KEY", raising=False)
    use(few, serve(good))
    result = preview(few, "-n", 3, status=1)
    assert result.stdout.count("as trained") == 3
    assert "verdict" not in result.stdout
    assert result.stderr.splitlines()[-1].startswith("Error: JUDGE_API_KEY: not set.")


def several_turns() -> Distilled:
    turns = [Turn(role="user", content="What is 1 + 1?"), Turn(role="assistant", content="It is 2.")]
    return Distilled(
        id="q",
        question="And 3 more?",
        answer="5",
        history=turns,
        sample=0,
        reasoning="2 + 3 = 5",
        response="It is 5.",
        finish_reason="stop",
        model="m",
        usage={},
    )


@pytest.mark.parametrize(
    ("settings", "learned"),
    [
        ({"train.loss_on": "every"}, ["It is 2.<|im_end|>", "It is 5.</answer><|im_end|>"]),
        ({"train.loss_on": "last"}, ["It is 5.</answer><|im_end|>"]),
        (
            {"train.loss_on": "last", "train.trainer.kind": "openmind", "train.system_prompt": "in_user_turn"},
            ["It is 5.</answer><|im_end|>"],
        ),
    ],
)
def test_what_is_learned_is_what_the_trainer_learns(
    few: DistillRunner, settings: dict[str, str], learned: list[str]
) -> None:
    params = load_params(few._project_params(few.settings | settings))
    trained = train_texts(params, [several_turns()])["q#0"]
    assert isinstance(trained, Trained)
    assert [part.text.rstrip()[-len(end) :] for part, end in zip(trained.parts[1::2], learned, strict=False)] == learned
    assert [part.has_loss for part in trained.parts[:2]] == [False, True]
    assert "".join(part.text for part in trained.parts).count("<|im_start|>assistant") == 2
    assert all(trained.fits.values())


def test_several_samples_are_judged_by_their_majority(few: DistillRunner, serve: Serve) -> None:
    few.settings |= {"filter.strategy": "majority", "distill.samples_per_question": 3}
    use(few, serve(good))
    _, *answers, whole = parts(preview(few, "-n", 2).stdout)
    assert [fields(answer)["verdict"] for answer in answers] == [
        "kept: right, decided by majority; read: 2; stated by 100% of the samples"
    ] * 6
    assert "question" not in fields(answers[1]), "the question and its prompt are shown once"
    assert fields(whole)["requests"] == "36: 6 in the store, 30 to send"


# ---- what it takes, and what it leaves ----


def test_the_whole_run_asks_only_what_the_preview_did_not(few: DistillRunner, serve: Serve) -> None:
    server = serve(good)
    use(few, server)
    preview(few, "-n", 3)
    assert len(server.asked) == 3
    preview(few, "-n", 3)
    assert len(server.asked) == 3, "a second preview asks nothing"
    first = set(server.asked)
    preview(few, "-n", 5)
    assert len(server.asked) == 5, "a larger one asks two more"
    questions = run_whole(few)
    assert sorted(server.asked) == sorted(map(prompted, questions)), "each question was asked once"
    assert first < set(map(prompted, questions))
    assert len(few.distilled()) == len(questions)


def test_more_questions_than_there_are_is_all_of_them(few: DistillRunner, serve: Serve) -> None:
    server = serve(good)
    use(few, server)
    shown = fields(parts(preview(few, "-n", 100).stdout)[-1])
    assert len(server.asked) == 12
    assert shown["requests"] == "12: 12 in the store, 0 to send"
    assert shown["time"] == "no request is left"
    assert run_whole(few)
    assert len(server.asked) == 12


def test_it_needs_no_key_and_no_server_where_the_store_has_the_answers(
    few: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(good)
    use(few, server)
    preview(few, "-n", 3)
    server.close()
    monkeypatch.delenv("API_KEY")
    preview(few, "-n", 3)
    few.set(offline=True)
    shown = parts(preview(few, "-n", 12).stdout)
    assert sum("as trained" in part for part in shown) == 3, "what the store has"
    assert fields(shown[-1])["requests"] == "12: 3 in the store, 9 to send; run.offline is true, so none would be sent"


def test_a_missing_key_and_an_empty_store_offline_are_one_line(
    few: DistillRunner, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY")
    use(few, serve(good))
    result = preview(few, status=1)
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Error: API_KEY: not set. Export it")
    few.set(offline=True)
    result = preview(few, status=1)
    assert result.stderr.splitlines()[-1].startswith("Error: preview: run.offline is true, and the store has no answer")


def test_only_the_store_is_written(few: DistillRunner, serve: Serve) -> None:
    use(few, serve(good))
    few.settings["filter.strategy"] = "judge"
    few.settings["filter.judge.kind"] = "embedded"
    preview(few, "-n", 2)
    left = {path.relative_to(few.folder).as_posix() for path in few.folder.rglob("*") if path.is_file()}
    stored = {"store/answers.jsonl", "store/answers.lock", "store/answers.claims"}
    assert left - stored <= {"params.yaml", "requests.jsonl"}


@pytest.mark.heavy
def test_an_interrupted_preview_loses_nothing(few: DistillRunner, serve: Serve) -> None:
    few.set(grace_s=0.2)
    hanging = True

    async def route(request: web.Request, content: str, attempt: int) -> web.StreamResponse:
        while hanging and content not in server.asked[:2]:
            await asyncio.sleep(0.01)
        return completion()

    server = serve(route)
    use(few, server)
    command = [sys.executable, "-m", "stages.preview", *arguments(few, "-n", 4)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: few.stored() == 2 and len(server.asked) == 4)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "2 answers were received and are kept" in stderr.splitlines()[-1]
    assert not list((few.folder / ".cache").glob("preview-*"))
    hanging = False
    preview(few, "-n", 4)
    assert len(server.asked) == 6, "the two in flight are asked again, those received are not"
    assert len(set(server.asked)) == 4


@pytest.mark.heavy
def test_git_and_dvc_see_no_change(workspace: Workspace) -> None:
    """In a finished project, with other params that the whole run has not seen: one more question to ask."""
    before = workspace.run("dvc", "status"), workspace.run("git", "status", "--porcelain"), workspace.times()
    asked = workspace.asked()
    shown = workspace.make("preview", "N=3")
    assert "3 of 3" in shown
    assert workspace.asked() == asked, "the finished run's answers are shown"
    assert (workspace.run("dvc", "status"), workspace.run("git", "status", "--porcelain"), workspace.times()) == before
    workspace.run("cp", "params.yaml", "other.yaml")
    text = (workspace.folder / "other.yaml").read_text()
    (workspace.folder / "other.yaml").write_text(text.replace("train_size: 12", "train_size: 30"))
    shown = workspace.make("preview", "N=30", "PARAMS=other.yaml")
    more = workspace.asked() - asked
    assert 0 < more <= 30
    (workspace.folder / "other.yaml").unlink()
    after = (workspace.run("dvc", "status"), workspace.run("git", "status", "--porcelain"))
    assert after == before[:2]
    assert {path for path in workspace.touched_since(before[2]) if "store" not in path} == set()


def test_the_questions_are_made_by_the_stages_before_distill() -> None:
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    assert makers(stages, "data/questions.jsonl") == [stages[name] for name in ("eval-data", "collect", "difficulty")]


# ---- the terminal ----


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Stdout counts as a terminal of 40 columns with colours."""
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "40"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    return monkeypatch


CHINESE = "首先，小明有三个苹果，他又买了五个苹果，所以一共有八个苹果。然后他吃掉了两个，还剩六个苹果。"


def test_chinese_is_wrapped_to_the_columns_of_the_terminal(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setenv("NO_COLOR", "1")
    Page(full=False).field("reasoning", CHINESE, style="green", gutter="│ ")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert max(map(cell_len, lines)) in (39, 40)
    assert "".join(line[15:].removeprefix("│ ") for line in lines) == CHINESE
    assert "\x1b" not in "".join(lines), "NO_COLOR"


def test_a_terminal_has_colour_and_a_pipe_has_neither_colour_nor_wrapping(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Page(full=False).field("verdict", CHINESE, style="green")
    assert "\x1b[32m" in capsys.readouterr().out
    terminal.delenv("FORCE_COLOR")
    Page(full=False).field("verdict", CHINESE, style="green")
    assert capsys.readouterr().out == f"verdict        {CHINESE}\n"


def test_an_answer_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Page(full=False).field("answer", "\x1b[2J[bold]3[/bold]\r\x9b1m")
    assert capsys.readouterr().out == "answer         \\x1b[2J[bold]3[/bold]\\r\\x9b1m\n"


# ---- the arithmetic ----


def test_a_mean_has_students_interval() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0, 5.0])  # t of 4 degrees of freedom: 2.776; standard error 0.7071
    assert found.about == 3
    assert [found.low, found.high] == pytest.approx([1.0368, 4.9632], abs=1e-4)
    assert mean([7.0]) == Range(7.0)
    assert mean([0.0, 0.0, 9.0]).low == 0


def test_a_total_has_the_interval_of_a_prediction() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    one = total(values, 1)  # the textbook's: mean ± 2.776 · 1.5811 · sqrt(1 + 1/5)
    assert [one.about, one.high] == pytest.approx([3, 3 + 2.7764 * 1.5811 * 1.2**0.5], abs=1e-3)
    many, plain = total(values, 100_000), mean(values)
    assert many.high is not None
    assert plain.high is not None
    assert many.high / 100_000 == pytest.approx(plain.high, rel=1e-4)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 5, 0.0, 0.5218), (5, 5, 0.4782, 1.0), (4, 5, 0.2836, 0.9949), (10, 100, 0.0490, 0.1762)],
)
def test_a_share_has_the_interval_of_clopper_and_pearson(count: int, of: int, low: float, high: float) -> None:
    found = share(count, of)
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-4)


def test_the_samples_of_a_question_are_one_value() -> None:
    assert by_question([("a", 1.0), ("b", 5.0), ("a", 3.0)]) == [2.0, 5.0]


def test_the_interval_holds_the_true_sum_as_often_as_it_says() -> None:
    """On the lengths of real solutions: GSM8K's, of which the sample of the repository has some."""
    rows = (public_data.FOLDER / "gsm8k" / "train.jsonl").read_text().splitlines()
    lengths = [float(len(json.loads(row)["answer"])) for row in rows]
    draw, held, tries = random.Random(3), 0, 400
    for _ in range(tries):
        draw.shuffle(lengths)
        known, rest = lengths[:5], lengths[5:]
        found = total(known, len(rest))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= sum(rest) <= found.high
    assert held / tries > 0.88
