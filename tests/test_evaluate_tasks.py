"""Which tasks a benchmark is, by the installed lm-eval; how long they take; the command for several cards."""

import importlib
import json
import logging
import re
import sys
import time
from pathlib import Path

import pytest

from stages.evaluate import main as evaluate
from stages.lib.evaluation import EvaluationError
from stages.lib.evaluation.forecast import LONG_H, billions, forecast, warning
from stages.lib.evaluation.launching import arguments, command, needs_several_processes
from stages.lib.evaluation.progress import Progress
from stages.lib.evaluation.results import is_right
from stages.lib.evaluation.tasks import KNOWN, chosen, folder_of_tasks, loaded
from stages.lib.params import Params, load_params

ROOT = Path(__file__).resolve().parents[1]
HELDOUT = Path("heldout.jsonl")


@pytest.fixture(scope="module")
def index() -> dict[str, str]:
    """The tasks and groups in the folders of the article's four benchmarks, as the installed lm-eval finds them."""
    from lm_eval.tasks import TaskManager

    folders = [folder_of_tasks() / name for name in ("mgsm", "gsm8k", "mmlu/default")]
    found = TaskManager(include_path=folders, include_defaults=False).task_index
    return {name: entry.kind.name for name, entry in found.items()}


@pytest.mark.parametrize(("name", "start"), [("mgsm_cot_native", "mgsm_native_cot_"), ("mgsm_direct", "mgsm_direct_")])
def test_each_mgsm_is_all_of_the_installed_tasks_of_its_kind_and_no_other(
    name: str, start: str, index: dict[str, str]
) -> None:
    asked = chosen(name, HELDOUT).tasks
    assert len(asked) == 11
    assert set(asked) == {task for task, kind in index.items() if task.startswith(start) and kind == "TASK"}


def test_gsm8k_is_one_task_and_mmlu_one_group_of_the_installed_ones(index: dict[str, str]) -> None:
    assert (chosen("gsm8k", HELDOUT).tasks, index["gsm8k"]) == (["gsm8k"], "TASK")
    assert (chosen("mmlu", HELDOUT).tasks, index["mmlu"]) == (["mmlu"], "GROUP")
    assert sum(kind == "TASK" and name.startswith("mmlu_") for name, kind in index.items()) == 57


def test_a_task_of_the_four_needs_their_folder_alone_and_a_tag_needs_all_of_lm_eval() -> None:
    assert chosen("lm-eval:mmlu_anatomy", HELDOUT).folder == "mmlu/default"
    assert chosen("lm-eval:mgsm_native_cot_zh", HELDOUT).data == "juletxara/mgsm"
    assert chosen("lm-eval:mmlu_stem", HELDOUT).data == "cais/mmlu", "a group of them, by its own name"
    # the tag of that name has a twelfth task elsewhere, so it is passed on as it is
    assert chosen("lm-eval:mgsm_direct", HELDOUT).folder is None
    assert "mgsm_direct" in KNOWN


def test_a_share_of_a_point_is_right_from_half_a_point_on() -> None:
    assert [is_right(mark) for mark in (1, 1.0, 0.7, 0.5, 0.4, 0.001, 0)] == [True] * 4 + [False] * 3


@pytest.mark.slow
def test_a_task_that_lm_eval_has_not_is_told_with_the_nearest_one() -> None:
    with pytest.raises(EvaluationError, match=r"lm-eval has no task 'arc_esay'. Did you mean 'arc_easy'\?"):
        loaded(chosen("lm-eval:arc_esay", HELDOUT))


def test_the_article_on_hf_takes_days_and_served_hours() -> None:
    expected = forecast(
        generations=1319 + 22 * 250,
        likelihoods=14042,
        max_gen_toks=4096,
        batch_size=8,
        device="npu",
        processes=1,
        billions=7.6,
    )
    assert expected.hf_h == pytest.approx((853 * 4096 * 0.04 + 14042 * 150 / 5000) / 3600)
    assert 24 < expected.hf_h < 72
    assert expected.served_h < 2
    line = warning(expected, 4096)
    assert line.startswith("6819 answers of up to 4096 tokens and 14042 choices: about 39 hours an arm with ")
    assert "about 1.2 with a served one" in line


def test_cards_divide_the_time_and_the_embedded_run_is_minutes() -> None:
    one = forecast(6819, 0, 4096, 8, "cuda", 1, 7.6)
    eight = forecast(6819, 0, 4096, 8, "cuda", 8, 7.6)
    assert one.hf_h / eight.hf_h == pytest.approx(8, rel=0.01)
    embedded = forecast(200, 0, 128, 50, "cpu", 1, 0.135)
    assert embedded.hf_h * 3600 == pytest.approx(4 * 128 * 0.324)
    assert embedded.hf_h < LONG_H / 100


def test_the_parameters_are_counted_by_the_size_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 4_000_000)
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    assert billions(tmp_path) == 0.002
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "float32"}))
    assert billions(tmp_path) == 0.001


def test_several_cards_run_the_same_command_through_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--arm", "base", "--heldout", "h.jsonl", "--metrics", "m.json", "--scores", "s.csv"]
    words += ["--answers", "a.jsonl", "--examples", "e.jsonl"]
    context = evaluate.make_context("evaluate", [*words])
    assert command("evaluate", 8, arguments(context)) == [
        sys.executable,
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "8", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "stages.evaluate"),
        *words,
        *("--params", "params.yaml"),
    ]


def test_accelerate_knows_every_word_of_that_command() -> None:
    parser = importlib.import_module("accelerate.commands.launch").launch_command_parser()
    parsed = parser.parse_args(command("evaluate", 8, ["--arm", "base"])[3:])
    assert (parsed.num_processes, parsed.module, parsed.training_script) == (8, True, "stages.evaluate")
    assert parsed.training_script_args == ["--arm", "base"]


def of(profile: str, device: str, processes: int) -> Params:
    params = load_params(ROOT / "profiles" / f"{profile}.yaml")
    run = params.run.model_copy(update={"device": device, "processes": processes})
    backend = params.evaluate.backend.model_copy(update={"kind": "hf"})
    evaluation = params.evaluate.model_copy(update={"backend": backend})
    return params.model_copy(update={"run": run, "evaluate": evaluation})


def test_several_are_started_for_cards_and_by_the_first_process_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    caplog.set_level(logging.INFO, "distillery.evaluate")
    cards, one, cpu = of("cuda", "cuda", 8), of("cuda", "cuda", 1), of("cuda", "cpu", 8)
    assert [needs_several_processes(each.evaluate, each.run) for each in (cards, one, cpu)] == [True, False, False]
    assert "lm-eval runs one process on a CPU" in caplog.text
    backend = cards.evaluate.backend.model_copy(update={"kind": "vllm"})
    vllm = cards.evaluate.model_copy(update={"backend": backend})
    assert not needs_several_processes(vllm, cards.run), "it spreads a model by its own arguments"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert not needs_several_processes(cards.evaluate, cards.run), "one of the several starts no more"


def test_a_line_says_how_far_it_is_where_there_is_no_terminal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "distillery.evaluate")
    progress = Progress(1, together=False, what="filtered: gsm8k", every_s=0)
    progress.in_lines = True
    progress.begin(3)
    progress.count()
    progress.count()
    assert caplog.messages[0] == "evaluate: filtered: gsm8k: 3 answers to compute"
    assert caplog.messages[2].startswith("evaluate: filtered: gsm8k: 2 of 3 answers, ")
    assert caplog.messages[2].endswith(" left")


@pytest.mark.parametrize("together", [True, False])
def test_the_time_left_is_said_after_the_second_batch_and_by_it(
    together: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The first batch takes 0.5 s and the others 0.1 s: of eight batches six are left after two, 0.6 s."""
    caplog.set_level(logging.INFO, "distillery.evaluate")
    progress = Progress(10, together=together, what="filtered: gsm8k", every_s=0)
    progress.in_lines = True
    progress.begin(80)
    for pause_s in (0.5, 0.1):
        time.sleep(pause_s)
        for _ in range(10):
            progress.count()
    lines = caplog.messages[1:]
    assert len(lines) == (2 if together else 20)
    assert {line.partition(", ")[2] for line in lines[:-1]} == {"no estimate yet"}
    assert re.fullmatch(r"evaluate: filtered: gsm8k: 20 of 80 answers, \d+\.\d/s, 1 s left", lines[-1]), lines[-1]
