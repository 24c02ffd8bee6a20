"""The schema of params.yaml: every key, its type and what it may be. It has no defaults, so DVC sees every value.

Each stage validates the whole file before it works. An error names the key, what was expected and the nearest
known name:

    params.yaml: train.lerning_rate: unknown key. Did you mean 'learning_rate'?

    python -m stages.lib.params params.yaml    # only check it, as a stage would

``run`` holds what shapes only speed and money; no stage lists it among its params in dvc.yaml.
"""

from difflib import get_close_matches
from io import StringIO
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.command import DistilleryError, one_line_errors

PROMPTS = Path(__file__).resolve().parents[1] / "prompts"


class ParamsError(DistilleryError):
    """params.yaml does not fit the schema."""


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Marker = Annotated[str, Field(min_length=1)]
FilePath = Annotated[str, Field(min_length=1)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
BENCHMARKS = ("heldout", "mgsm_cot_native", "mgsm_direct", "gsm8k", "mmlu")
LM_EVAL = "lm-eval:"  # before the name of any other task, group or tag of lm-eval
# arguments of lm-eval's model classes that come from other keys of params.yaml
OF_A_MODEL = {
    "base_url",
    "batch_size",
    "device",
    "dtype",
    "header",
    "max_gen_toks",
    "max_retries",
    "model",
    "num_concurrent",
    "pretrained",
    "seed",
    "think_end_token",
    "timeout",
    "tokenizer",
    "tokenizer_backend",
}
# what a server of the protocol may do wrong: first what passes when asked again, then what stays (embedded/faults.py)
Fault = Literal[
    "rate_limit",
    "rate_limit_retry_after",
    "server_error",
    "bad_gateway",
    "unavailable",
    "hang",
    "reset",
    "body_cut",
    "truncated_json",
    "empty_body",
    "blank_lines",
    "error_object",
    "no_choices",
    "length",
    "empty_content",
    "empty_reasoning",
    "content_filter",
]
OF_A_REQUEST = {
    "endpoint",
    "sample",
    "draw",
    "model",
    "messages",
    "temperature",
    "top_p",
    "max_tokens",
    "n",
    "stream",
    "stream_options",
}
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
SystemPrompt = Literal["as_system", "in_user_turn"]


def _known_benchmark(name: str) -> str:
    if name not in BENCHMARKS and not (name.startswith(LM_EVAL) and name.removeprefix(LM_EVAL).strip()):
        raise ValueError(f"no benchmark {name!r}. Known: {', '.join(BENCHMARKS)}; of lm-eval any other: {LM_EVAL}TASK")
    return name


Benchmark = Annotated[str, AfterValidator(_known_benchmark)]


class Section(BaseModel):
    """A mapping of params.yaml: unknown keys and wrong types are errors."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class ChainSum(Section):
    """Generated sums and differences (reasoning-gym ``chain_sum``); a question's own seed is ``seed + index``."""

    seed: Seed
    heldout_seed: Seed
    min_terms: Annotated[int, Field(ge=2)]
    max_terms: Annotated[int, Field(ge=2)]
    min_digits: Count
    max_digits: Count


class Gsm8k(Section):
    """Where GSM8K comes from: ModelScope (``path`` a dataset id or a folder in its layout) or the official JSONL."""

    origin: Literal["modelscope", "jsonl"]
    path: str
    split: Literal["train", "test"]


class BenchmarkTexts(Section):
    """Where each benchmark's official files lie; null where they are not at hand: not checked, and said so."""

    gsm8k: FilePath | None
    mgsm: FilePath | None
    mmlu: FilePath | None


class Contamination(Section):
    """How many words in a row make a training question a benchmark's."""

    ngram: Count
    benchmarks: BenchmarkTexts


class Collect(Section):
    """Which questions: the first ``size`` of the source, and ``heldout_size`` others to evaluate on.

    What is left out of either is not made up for: the sets are then smaller.
    """

    source: Literal["chain_sum", "gsm8k"]
    size: Count
    heldout_size: Annotated[int, Field(ge=0)]
    chain_sum: ChainSum
    gsm8k: Gsm8k
    contamination: Contamination


class EmbeddedTeacher(Section):
    """How often the embedded teacher slips, which questions it slips on, and the share of each fault it commits."""

    slip_share: Share
    seed: Seed
    faults: dict[Fault, Share]

    @model_validator(mode="after")
    def _shares_fit(self) -> "EmbeddedTeacher":
        if sum(self.faults.values()) > 1:
            raise ValueError("the shares of all faults come to more than 1")
        return self


class Teacher(Section):
    """Who answers. Null sampling values are not sent, so the endpoint's own defaults hold.

    ``extra_body`` is sent as it stands and is part of the store's key: ``{enable_thinking: true}`` for DashScope's
    hybrid models, ``{chat_template_kwargs: {enable_thinking: true}}`` for some of vLLM's.
    """

    backend: Literal["embedded", "openai_compatible"]
    base_url: str | None
    model: str
    temperature: Annotated[float, Field(ge=0)] | None
    top_p: Share | None
    max_tokens: Count | None
    extra_body: dict[str, JsonValue]
    embedded: EmbeddedTeacher

    @model_validator(mode="after")
    def _extra_is_extra(self) -> "Teacher":
        taken = sorted(OF_A_REQUEST & set(self.extra_body))
        if taken:
            raise ValueError(f"extra_body holds {taken[0]!r}, which is not extra: it has a key or a meaning of its own")
        return self

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> "Teacher":
        if self.backend == "openai_compatible" and not self.base_url:
            raise ValueError("openai_compatible needs a base_url, for example http://127.0.0.1:8000/v1")
        if self.base_url:
            url = AnyHttpUrl(self.base_url)
            if url.username or url.password or url.query:
                raise ValueError("a base_url is stored and shown, so it holds no user, password or query; use API_KEY")
        return self


class Distill(Section):
    """What is asked, how often, and the share of failed rows above which the stage fails."""

    prompt: Name
    samples_per_question: Count
    max_failed_share: Share
    teacher: Teacher


class Judge(Teacher):
    """The model that marks answers where ``filter.strategy`` or ``judge_audit_share`` asks one."""

    prompt: Name


class Filter(Section):
    """How answers are judged, what becomes of those that nobody could judge, and which right ones are kept.

    ``judge_audit_share``: of the answers that the rule decided alone, so many are marked by the judge too, for the
    table of rule against judge; their verdict stays the rule's.
    """

    strategy: Literal["rule", "judge", "rule_then_judge", "both"]
    on_unsure: Literal["reject", "keep"]
    select: Literal["first_correct", "shortest_correct", "all_correct"]
    judge_audit_share: Share
    audit_seed: Seed
    judge: Judge
    control_seed: Seed


class Markers(Section):
    """What stands around the thought and the solution; those of the solution are the ones that a reader knows."""

    begin_of_thought: Marker
    end_of_thought: Marker
    begin_of_solution: Literal["<|begin_of_solution|>", "<answer>"]
    end_of_solution: Literal["<|end_of_solution|>", "</answer>"]

    @model_validator(mode="after")
    def _tell_apart(self) -> "Markers":
        if any(one in other for one, other in permutations(self.model_dump().values(), 2)):
            raise ValueError("one marker is, or is a part of, another, so a reader could not tell them apart")
        return self


class Tags(Section):
    """A turn's keys (who speaks, and what) and the speakers' names, as the entry in dataset_info.json has them."""

    role_tag: Marker
    content_tag: Marker
    user_tag: Marker
    assistant_tag: Marker
    system_tag: Marker

    @model_validator(mode="after")
    def _tell_apart(self) -> "Tags":
        if self.role_tag == self.content_tag:
            raise ValueError("role_tag and content_tag are the same key, so one text would replace the other")
        if len({self.user_tag, self.assistant_tag, self.system_tag}) < 3:
            raise ValueError("user_tag, assistant_tag and system_tag do not tell the speakers apart")
        return self


class Convert(Section):
    """How a row becomes a ShareGPT conversation."""

    system_prompt: Name
    ascii: bool
    markers: Markers
    tags: Tags


class Student(Section):
    """Whose weights are trained: a package that ships them, a folder, an id on ModelScope, Modelers or a hub."""

    source: Literal["package", "path", "modelscope", "modelers", "hub"]
    name: str
    revision: str | None


class Lora(Section):
    """Low-rank adapters, merged into the weights when the student is saved; ``keep_adapter`` saves them apart too."""

    r: Count
    alpha: Count
    dropout: Share
    target_modules: str | list[str]
    keep_adapter: bool


class OpenMind(Section):
    """How openMind is asked and started, and keys of its training YAML that are its own.

    What is null is not written in the YAML. ``merge_into`` is for a version without ``custom_dataset_info``: the path
    of its own dataset_info.json, which gets our entry while it trains. ``extra`` holds any further keys of the YAML.
    """

    version: Literal["1.0.0", "git"]
    command: str | None
    template: Literal["qwen"] | None
    merge_into: FilePath | None
    logging_steps: Count
    save_steps: Count
    overwrite_output_dir: bool
    extra: dict[str, JsonValue]

    @model_validator(mode="after")
    def _version_can(self) -> "OpenMind":
        if self.version == "1.0.0" and self.template:
            raise ValueError("release 1.0.0 refuses the key template and chooses by itself; set template: null")
        if self.version == "git" and not self.template:
            raise ValueError("openMind from its repository is told the template; set template: qwen")
        return self


class Train(Section):
    """What the trainings of all arms share; ``deepspeed`` is the file of its settings.

    ``system_prompt``: where a conversation's system text goes. ``save_dtype``: the numbers of the saved weights,
    ``auto`` those of the student as published. ``group_by_length`` and ``packing`` are TRL's. So are ``save_steps`` and
    ``resume`` of its checkpoints, which shape no result; openMind has its own two of them.
    """

    backend: Literal["trl", "openmind"]
    student: Student
    system_prompt: SystemPrompt
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"]
    on_too_long: Literal["drop", "error", "shorten_reasoning"]
    finetuning_type: Literal["full", "lora"]
    lora: Lora
    per_device_train_batch_size: Count
    gradient_accumulation_steps: Count
    gradient_checkpointing: bool
    group_by_length: bool
    packing: bool
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_ratio: Share
    weight_decay: Annotated[float, Field(ge=0)]
    bf16: bool
    deepspeed: FilePath | None
    seed: Seed
    save_steps: Count | None
    resume: bool
    openmind: OpenMind

    @model_validator(mode="after")
    def _system_text_is_trained(self) -> "Train":
        if self.backend == "openmind" and self.openmind.version == "1.0.0" and self.system_prompt == "as_system":
            raise ValueError("openMind 1.0.0 drops the system text of a sample; set system_prompt: in_user_turn")
        return self

    @model_validator(mode="after")
    def _one_way_to_spare_padding(self) -> "Train":
        if self.packing and self.group_by_length:
            raise ValueError("packing fills rows up to one length, so group_by_length has nothing to do; set one false")
        return self


class Evaluate(Section):
    """What the arms are asked, how they answer, and which score counts.

    ``backend_args`` go to lm-eval's class of that backend as they stand, for example ``{tensor_parallel_size: 8}``.
    ``num_fewshot`` is by benchmark; one that is not named there gets its task's own number.
    """

    benchmarks: Annotated[list[Benchmark], Field(min_length=1)]
    headline: Literal["verifier", "lm_eval"]
    backend: Literal["hf", "vllm", "local-completions", "local-chat-completions"]
    backend_args: dict[str, JsonValue]
    base_prompt: Literal["plain", "same_as_trained"]
    chat_template: bool
    num_fewshot: dict[str, Annotated[int, Field(ge=0)]]
    batch_size: Count
    max_gen_toks: Count
    limit: Count | None
    dtype: Literal["float32", "bfloat16", "float16"]
    seed: Seed

    @model_validator(mode="after")
    def _args_are_further(self) -> "Evaluate":
        taken = sorted(OF_A_MODEL & set(self.backend_args))
        if taken:
            raise ValueError(f"backend_args holds {taken[0]!r}, which other keys say. Take it out of backend_args")
        return self

    @model_validator(mode="after")
    def _chat_can(self) -> "Evaluate":
        if self.backend == "local-chat-completions" and "mmlu" in self.benchmarks:
            raise ValueError(
                "mmlu needs log-likelihoods, which local-chat-completions does not give. "
                "Take local-completions, or leave mmlu out"
            )
        if self.backend == "local-chat-completions" and not self.chat_template:
            raise ValueError("local-chat-completions always asks through a chat template. Set chat_template: true")
        return self

    @model_validator(mode="after")
    def _fewshot_is_asked(self) -> "Evaluate":
        for name in self.num_fewshot:
            if name not in self.benchmarks:
                raise ValueError(f"num_fewshot names {name!r}, which is not among the benchmarks")
        if self.num_fewshot.get("heldout"):
            raise ValueError("num_fewshot: heldout has no examples to show but its own questions; leave it out")
        return self


class Compare(Section):
    """Which pairs of arms are compared (the first minus the second; null: the usual ones), and how.

    ``interval`` is the method of a difference's interval and p. Where questions repeat a problem, as in MGSM, it is
    pseudo_pairs either way: Tango's is for independent pairs.
    """

    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None
    interval: Literal["pseudo_pairs", "tango"]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class Report(Section):
    """What the page shows."""

    samples: Count
    seed: Seed


class S1k(Section):
    """Where s1K-1.1 comes from: an id on a hub or on ModelScope, or a local file (.parquet or .jsonl)."""

    origin: Literal["hub", "modelscope", "file"]
    path: FilePath


class BenchmarkSource(Section):
    """Where a benchmark's files come from: a dataset's id on a hub or on ModelScope, or a folder."""

    origin: Literal["hub", "modelscope", "folder"]
    path: FilePath
    revision: str | None


class EvalData(Section):
    """The public benchmarks that are gathered for an evaluation without a network; null: not gathered."""

    gsm8k: BenchmarkSource | None
    mgsm: BenchmarkSource | None
    mmlu: BenchmarkSource | None


class Dataset(Section):
    """A training set: the file of distilled rows that it is made from."""

    rows: str


class Arm(Section):
    """A training: which dataset, how long, how fast. ``max_steps`` (or null) overrides the epochs."""

    dataset: Name
    num_train_epochs: Positive
    max_steps: Count | None
    learning_rate: Positive
    cutoff_len: Count


class Price(Section):
    """What a model costs, per million tokens; ``cached_input`` is for what the provider's own cache served."""

    input: Annotated[float, Field(ge=0)]
    cached_input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Prices(Section):
    """The price table: its currency, when it was read (a text), and the models; a model not there has no price."""

    currency: Annotated[str, Field(min_length=1)]
    date: str
    models: dict[str, Price]


class Run(Section):
    """What no stage depends on: speed, money, and how long an answer is waited for (what times out is a failed row)."""

    concurrency: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    timeout_s: Positive
    max_attempts: Count
    backoff_s: Positive
    longest_wait_s: Positive
    outage_s: Positive
    grace_s: Positive
    stream: bool
    offline: bool
    api_key_variable: Variable
    judge_api_key_variable: Variable
    served_base_url: str | None
    served_model: Annotated[str, Field(min_length=1)]
    served_api_key_variable: Variable
    prices: Prices
    budget: Positive | None
    embedded_latency_s: Annotated[float, Field(ge=0)]
    embedded_port: Annotated[int, Field(ge=0, le=65535)]
    processes: Count
    threads: Count
    device: Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]


class Params(Section):
    """The whole of params.yaml."""

    collect: Collect
    distill: Distill
    filter: Filter
    convert: Convert
    train: Train
    eval_data: EvalData
    evaluate: Evaluate
    compare: Compare
    report: Report
    collect_s1k: dict[Name, S1k]
    datasets: dict[Name, Dataset]
    arms: dict[Name, Arm]
    run: Run


def load_params(path: Path) -> Params:
    """Read and check a params file against the schema; ParamsError, in one line, on the first thing that is wrong."""
    try:
        # ruamel reads YAML 1.2, as DVC does: PyYAML takes 1e-3 for a string
        raw = YAML(typ="safe").load(StringIO(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file. 'git checkout {path.name}' brings back the committed one.") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 (byte {error.start}). Save the file as UTF-8.") from error
    except YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise ParamsError(f"{path}{line}: not YAML ({getattr(error, 'problem', error)}). Mend that line.") from error
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{path}: {_complaint(error)}") from error
    _check_names(params, path)
    return params


def prompt_text(name: str) -> str:
    """The text of a prompt, as it stands in stages/prompts/NAME.txt, to the byte."""
    path = PROMPTS / f"{name}.txt"
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 (byte at {error.start}). Save the prompt as UTF-8.") from error


def slotted_prompt_text(key: str, name: str, what: str) -> str:
    """The text of a prompt that says where the ``what`` stands; ``key`` is where params name it."""
    text = prompt_text(name)
    if "{question}" not in text:
        raise ParamsError(
            f"params.yaml: {key}: stages/prompts/{name}.txt does not say where the {what} stands. "
            "Write {question} into it, or choose another prompt."
        )
    return text


def _check_names(params: Params, path: Path) -> None:
    """What one key says of another: each arm's dataset, each pair's arms, each prompt's file."""
    for name, arm in params.arms.items():
        if arm.dataset not in params.datasets:
            nearest = _nearest(arm.dataset, list(params.datasets))
            raise ParamsError(f"{path}: arms.{name}.dataset: no dataset '{arm.dataset}'.{nearest}")
    if "base" in params.arms:
        raise ParamsError(f"{path}: arms.base: 'base' is the untrained student. Name the arm otherwise.")
    arms = ["base", *params.arms]
    for name in [name for pair in params.compare.pairs or [] for name in pair]:
        if name not in arms:
            raise ParamsError(f"{path}: compare.pairs: no arm '{name}'.{_nearest(name, arms)}")
    prompts = sorted(file.stem for file in PROMPTS.glob("*.txt"))
    for key, name in (
        ("distill.prompt", params.distill.prompt),
        ("filter.judge.prompt", params.filter.judge.prompt),
        ("convert.system_prompt", params.convert.system_prompt),
    ):
        if name not in prompts:
            raise ParamsError(f"{path}: {key}: no file stages/prompts/{name}.txt.{_nearest(name, prompts)}")
    for name in params.evaluate.benchmarks:
        if params.evaluate.benchmarks.count(name) > 1:
            raise ParamsError(f"{path}: evaluate.benchmarks: '{name}' stands there twice. Leave one out.")
    sums = params.collect.chain_sum
    if sums.min_terms > sums.max_terms or sums.min_digits > sums.max_digits:
        raise ParamsError(f"{path}: collect.chain_sum: a minimum is above its maximum. Swap them.")


def _complaint(error: ValidationError) -> str:
    # a misspelt key is also a missing one: the unknown name says more
    errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = errors[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        text = f"{key}: unknown key.{_nearest(str(first['loc'][-1]), _known_keys(first['loc'][:-1]))}"
    elif first["type"] == "missing":
        text = f"{key}: missing. Every value stands in the file; 'git diff' shows what was removed."
    elif first["type"] == "value_error":
        text = f"{key}: {first['ctx']['error']}."
    else:
        text = f"{key or 'the file'}: {first['msg']}, not {first['input']!r:.60}."
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return text + more


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the schema knows at a place such as ('arms', 'filtered')."""
    node: Any = Params
    for part in location:
        if isinstance(node, type) and issubclass(node, BaseModel):
            node = node.model_fields[str(part)].annotation if part in node.model_fields else None
        else:
            node = getattr(node, "__args__", (None, None))[-1]
    return list(node.model_fields) if isinstance(node, type) and issubclass(node, BaseModel) else []


def _nearest(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""


def _profiles(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


@click.command(help="Check a params file against the schema.")
@click.argument("path", type=click.Path(path_type=Path))
@one_line_errors
def main(path: Path) -> None:
    if not path.is_file() and path.parent.name == "profiles":
        raise ParamsError(f"{path}: no such profile.{_nearest(path.stem, _profiles(path.parent))}")
    params = load_params(path)
    click.echo(f"{path}: valid; datasets {', '.join(params.datasets)}; arms base, {', '.join(params.arms)}")


if __name__ == "__main__":
    main()
