"""The profiles: each is whole and valid, the article's is the article's to the value, and make lays one down."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.lib import params as schema
from stages.lib.params import load_params, prompt_text
from stages.lib.params.__main__ import main
from stages.lib.training.launching import zero_stage
from stages.lib.training.resources import GIB, Sharing, Size
from tests.public_data import ARTICLE as ARTICLE_FILES

ROOT = Path(__file__).resolve().parents[1]
QWEN_7B = 7_615_616_512  # parameters
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"

# the article's training YAML, key by key: its value, and the key of profiles/article.yaml that holds it
TRAIN_YAML = {
    "finetuning_type": ("full", "train.finetuning.kind"),
    "deepspeed": ("examples/deepspeed/ds_z2_config.json", "train.deepspeed"),
    "template": ("qwen", "train.trainer.template"),
    "logging_steps": (1, "train.trainer.logging_steps"),
    "save_steps": (20000, "run.checkpoint_steps"),
    "overwrite_output_dir": (False, "run.resume"),  # written the other way round
    "per_device_train_batch_size": (1, "train.per_device_train_batch_size"),
    "lr_scheduler_type": ("cosine", "train.lr_scheduler_type"),
    "warmup_ratio": (0.1, "train.warmup_ratio"),
    "bf16": (True, "train.bf16"),
    "seed": (1234, "train.seed"),
    "cutoff_len": (1024, "arms.*.cutoff_len"),
    "learning_rate": (1.0e-5, "arms.*.learning_rate"),
    "max_steps": (125, "arms.*.max_steps"),
}
# its other keys: stage and do_train are what training means here; the paths and the dataset's name are the pipeline's
PIPELINES_OWN = {"stage": "sft", "do_train": True} | dict.fromkeys(["model_name_or_path", "dataset", "output_dir"])

# the rest of what the article says of its data, its teacher, its judge and its benchmarks
ARTICLE = {
    "collect.source.kind": "preset",
    "collect.source.name": "gsm8k",
    "collect.train_size": 1000,
    "collect.source.origin": "modelscope",
    "collect.source.path": "modelscope/gsm8k",
    "collect.source.split": "train",
    "distill.prompt": "father",
    "distill.samples_per_question": 1,
    "distill.teacher.kind": "openai_compatible",
    "distill.teacher.base_url": DASHSCOPE,
    "distill.teacher.model": "deepseek-r1",
    "distill.teacher.temperature": None,
    "distill.teacher.top_p": None,
    "distill.teacher.max_tokens": None,
    "filter.strategy": "judge",
    "filter.judge.prompt": "strict_teacher",
    "filter.judge.kind": "openai_compatible",
    "filter.judge.base_url": DASHSCOPE,
    "filter.judge.temperature": None,
    "filter.judge.top_p": None,
    "filter.judge.max_tokens": None,
    "convert.system_prompt": "still2",
    "convert.ascii": True,
    "convert.markers.begin_of_thought": "<|begin_of_thought|>",
    "convert.markers.end_of_thought": "<|end_of_thought|>",
    "convert.markers.begin_of_solution": "<|begin_of_solution|>",
    "convert.markers.end_of_solution": "<|end_of_solution|>",
    "convert.tags.role_tag": "from",
    "convert.tags.content_tag": "value",
    "convert.tags.user_tag": "user",
    "convert.tags.assistant_tag": "assistant",
    "convert.tags.system_tag": "system",
    "traces.s1k.source.name": "s1k",
    "traces.s1k.source.path": "simplescaling/s1K-1.1",
    "train.trainer.kind": "openmind",
    "train.student.name": "Qwen/Qwen2.5-7B-Instruct",
    "evaluate.benchmarks": ["mgsm_cot_native", "mgsm_direct", "gsm8k", "mmlu"],
    "run.concurrency": 30,
}


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def values(section: Any, key: str) -> list[Any]:
    """What stands at a dotted key; ``*`` is every key of a mapping."""
    found = [section]
    for part in key.split("."):
        found = [value for each in found for value in (each.values() if part == "*" else [each[part]])]
    return found


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def test_the_profiles() -> None:
    assert [path.stem for path in PROFILES] == ["article", "ascend", "cuda", "embedded", "on-policy", "own-data"]


@named(PROFILES)
def test_every_profile_is_whole_and_valid(path: Path) -> None:
    params = load_params(path)
    assert params.model_dump(exclude_unset=True) == loaded(path.stem)


@named(PROFILES)
def test_every_profile_has_the_sections_in_the_same_order(path: Path) -> None:
    assert list(loaded(path.stem)) == list(loaded("embedded")) == list(schema.Params.model_fields)


def test_the_embedded_profile_is_params_yaml() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles" / "embedded.yaml").read_bytes()


def test_a_profile_of_no_such_name_is_told_with_the_nearest_one(refuses: Callable[..., str]) -> None:
    line = refuses(main, ROOT / "profiles" / "artcle.yaml")
    assert line.endswith("artcle.yaml: no such profile. Did you mean 'article'?")


@pytest.mark.parametrize(("key", "expected"), ARTICLE.items())
def test_the_article_profile_is_the_article(key: str, expected: Any) -> None:
    assert values(loaded("article"), key) == [expected]


@pytest.mark.parametrize("key", TRAIN_YAML)
def test_the_article_profile_has_every_value_of_its_training_yaml(key: str) -> None:
    expected, where = TRAIN_YAML[key]
    found = values(loaded("article"), where)
    assert found
    assert all(value == expected and type(value) is type(expected) for value in found)


def test_the_training_yaml_is_written_out_whole() -> None:
    article = YAML(typ="safe").load(ARTICLE_FILES / "train.yaml")
    assert set(article) == {*TRAIN_YAML, *PIPELINES_OWN}
    named = {key: value for key, (value, _) in TRAIN_YAML.items()}
    named["overwrite_output_dir"] = not named["overwrite_output_dir"]
    assert {key: article[key] for key in TRAIN_YAML} == named
    assert (article["stage"], article["do_train"]) == (PIPELINES_OWN["stage"], PIPELINES_OWN["do_train"])


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("father", "ddc4d27b2809b39d19beebb90c007c13264281201a832edf8d766a710e14f81f"),
        ("strict_teacher", "aba6b6b9514f9b7ce3fd423e512a15117ecde74e5c16632dc228c06dff7f030f"),
        ("still2", "c5ae4aa0b0d6fcadd6fa8977f5e55b1f2dccb7582bd05b80385e2f22650a9f8d"),
    ],
)
def test_the_prompts_it_names_are_the_articles_to_the_byte(name: str, digest: str) -> None:
    assert sha256(prompt_text(name).encode()).hexdigest() == digest


def test_the_article_has_its_four_arms_and_their_comparison() -> None:
    article = loaded("article")
    assert {name: arm["dataset"] for name, arm in article["arms"].items()} == {
        "unfiltered": "unfiltered",
        "filtered": "filtered",
        "s1k": "s1k",
    }
    assert {first for first, second in article["compare"]["pairs"] if second == "base"} == set(article["arms"])
    assert ["filtered", "unfiltered"] in article["compare"]["pairs"]


@named(PROFILES)
def test_s1k_is_read_by_just_the_profiles_that_train_on_it(path: Path) -> None:
    ours = loaded(path.stem)
    made = {f"data/{name}.jsonl" for name in ours["traces"]}
    rows = {name: ours["datasets"][name]["rows"] for name in {arm["dataset"] for arm in ours["arms"].values()}}
    assert made == {key: set() for key in ["embedded", "on-policy", "own-data"]}.get(path.stem, {"data/s1k.jsonl"})
    assert made <= set(rows.values())


def test_the_embedded_profile_fits_on_two_screens() -> None:
    assert len((ROOT / "profiles" / "embedded.yaml").read_text(encoding="utf-8").splitlines()) <= 119


@named(PROFILES)
def test_no_profile_says_of_a_key_that_something_else_reads_it(path: Path) -> None:
    assert not re.search(r"read by .* alone", path.read_text(encoding="utf-8"))


@named(PROFILES)
def test_the_tags_are_the_articles_entry(path: Path) -> None:
    entry = json.loads((ARTICLE_FILES / "dataset_info_entry.json").read_bytes())
    assert loaded(path.stem)["convert"]["tags"] == entry["DS_r1_answer"]["tags"]


@pytest.mark.parametrize("name", ["ascend", "cuda"])
def test_what_we_recommend_follows_the_articles_advice(name: str) -> None:
    ours = loaded(name)
    assert {arm: each["num_train_epochs"] for arm, each in ours["arms"].items()} == {
        "unfiltered": 1.0,
        "filtered": 1.0,
        "control": 1.0,
        "s1k": 1.0,
        "unfiltered-4-epochs": 4.0,
    }
    assert values(ours, "arms.*.cutoff_len") == [4096] * 5
    assert values(ours, "arms.*.max_steps") == [None] * 5
    assert ours["filter"]["strategy"] == "rule_then_judge"


def test_cuda_is_ascend_with_another_trainer_on_another_device() -> None:
    ascend, cuda = loaded("ascend"), loaded("cuda")
    assert (ascend["run"].pop("device"), cuda["run"].pop("device")) == ("npu", "cuda")
    trainers = [each["train"].pop("trainer") for each in (ascend, cuda)]
    assert [each["kind"] for each in trainers] == ["openmind", "trl"]
    assert [each["run"].pop("resume") for each in (ascend, cuda)] == [False, True]
    rows = [each["train"].pop("gradient_accumulation_steps") for each in (ascend, cuda)]
    assert rows == [1, 8]  # eight cards' own, four cards' together: eight rows a step
    assert [each["run"].pop("processes") for each in (ascend, cuda)] == [8, 4]
    assert ascend == cuda


def test_cuda_has_eight_rows_a_step_and_cards_that_can_hold_its_student() -> None:
    params = load_params(ROOT / "profiles" / "cuda.yaml")
    assert params.train.per_device_train_batch_size * params.train.gradient_accumulation_steps == 8
    assert params.train.gradient_accumulation_steps % params.run.processes == 0
    assert params.train.deepspeed is not None
    sharing = Sharing(params.run.processes, zero_stage(str(ROOT / params.train.deepspeed)), params.train.bf16)
    assert sum(sharing.bytes_per_card(Size(QWEN_7B, QWEN_7B))) < 60 * GIB, "of 74.5, for the rows come on top"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository of what ``make profile-NAME`` needs, in this project's state."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for folder in ("profiles", "stages"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("Makefile", "params.yaml"):
        shutil.copy(ROOT / file, copy / file)
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "Copy"]):
        subprocess.run(["git", *words], cwd=copy, check=True)
    return copy


def make_profile(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``make profile-NAME`` with the environment that runs the tests (-o: without making another)."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["make", "--no-print-directory", "-o", "setup", f"profile-{name}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_make_profile_lays_it_down_and_prints_the_difference(repository: Path) -> None:
    done = make_profile("article", repository)
    assert done.returncode == 0, done.stderr
    assert (repository / "params.yaml").read_bytes() == (repository / "profiles" / "article.yaml").read_bytes()
    assert "-    {kind: chain_sum, " in done.stdout
    assert "+    name: gsm8k" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("params.yaml: valid; ")


@pytest.mark.heavy
def test_make_profile_embedded_brings_the_committed_params_back(repository: Path) -> None:
    make_profile("article", repository)
    done = make_profile("embedded", repository)
    assert (done.returncode, done.stderr) == (0, "")
    assert (repository / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert len(done.stdout.splitlines()) == 1  # no difference
    assert done.stdout.startswith("params.yaml: valid; ")


@pytest.mark.parametrize("name", ["artcle", "broken"])
def test_make_profile_leaves_params_alone_where_there_is_no_valid_profile(name: str, repository: Path) -> None:
    (repository / "profiles" / "broken.yaml").write_text("collect: {}\n")
    done = make_profile(name, repository)
    assert done.returncode != 0
    assert f"profiles/{name}.yaml: " in done.stderr
    assert "Traceback" not in done.stderr
    assert (repository / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
