"""openMind's own fine-tuning, run in its own environment: its YAML and dataset are written, its weights fetched.

In:   a job (training/__init__.py), train.trainer of params.yaml
Out:  job.out                        final weights, tokenizer, and the chat template that was trained with
      .cache/training/ARM.log        all that openMind said; it streams to stderr too
      .cache/training/ARM/DIGEST/    while it runs: train.yaml, ARM's dataset, dataset_info.json, openMind's output

openMind is started by ``train.trainer.command``, else by ``$OPENMIND_CLI``, else as ``openmind-cli`` of the PATH. The
whole environment passes to it: ASCEND_RT_VISIBLE_DEVICES, NPROC_PER_NODE, NNODES, RANK, MASTER_ADDR, HCCL_… Its exit
code is 0 even where it fails, so a training has succeeded when the weights and all its steps are written, not before.
Where params have it resume (``run.resume``), a killed training goes on from its last whole one.

What was read in release 1.0.0 and shapes this module:
- unknown keys of the YAML are fatal, ``template`` among them; the template follows from the kind of model;
- a sample's ``system`` text is ignored; a fixed sentence stands in its place (``system_prompt: in_user_turn``);
- prompt and answer are tokenized apart, the end token follows the answer, and only these two bear a loss;
- whatever is longer than cutoff_len is cut, prompt and answer: length.py sees to such rows before openMind does;
- all that is trained is cast to fp32 on the host, by every process, before DeepSpeed or the card gets it.
"""

import hashlib
import json
import logging
import math
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from stages.lib.chat_template import SEPARATOR
from stages.lib.command import project_root
from stages.lib.params import Lora, OpenMind, SystemPrompt
from stages.lib.rows import writing
from stages.lib.training import LIBRARIES, Conversation, Job, LossPoint, Trained, TrainingError
from stages.lib.training.checkpoints import SHAPELESS, files_of, held_folder, last_checkpoint, short_hash, step_of
from stages.lib.training.launching import deepspeed_file, last_lines, launch, zero_stage
from stages.lib.training.length import Fitting, fitting
from stages.lib.training.portable import readable_by_4
from stages.lib.training.resources import (
    Sharing,
    check_cards,
    check_room,
    check_weights_there,
    device_memory,
    says_out_of_memory,
    smaller,
    stored_size,
)
from stages.lib.training.saving import save_folder, save_model

log = logging.getLogger("distillery.train")

KINDS = ("qwen2",)  # the model types that release 1.0.0 has a template for (its configs/models.json)
TURN = ("<|im_start|>", "<|im_end|>")  # the template's own tokens
# what says how often and where, and not what is learnt
_SHAPELESS = {"kind", "command", "merge_into"}
PROBE_S = 120.0
PROBE = """
import sys, torch
if sys.argv[1] == "npu":
    import torch_npu
backend = getattr(torch, sys.argv[1])
print(backend.device_count(), backend.get_device_properties(0).total_memory)
"""
TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "user", "assistant_tag": "assistant"}

# openMind's template "qwen" with its own sentence; {system} and {before} say where a system text of ours goes
_SENTENCE = "You are a helpful assistant."
_OURS = "messages[0]['role'] == 'system'"
_TEMPLATE = (
    "<|im_start|>system\n{system}<|im_end|>\n"
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "<|im_start|>{{ message['role'] }}\n{before}{{ message['content'] }}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class _LogEntry(BaseModel):
    step: int
    loss: float | None = None
    learning_rate: float | None = None
    train_loss: float | None = None


class _State(BaseModel):
    """What trainer_state.json says of a training that ended."""

    global_step: int
    max_steps: int
    epoch: float
    log_history: list[_LogEntry]


@dataclass(frozen=True)
class _Row:
    """A conversation and the lengths that openMind gives it, in tokens."""

    conversation: Conversation
    prompt_tokens: int
    answer_tokens: int  # its end token among them

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens

    def fits(self, cutoff_len: int) -> bool:
        """Whether openMind leaves it whole; its division in floats cuts some rows of just this length."""
        return self.tokens <= cutoff_len and int(cutoff_len * (self.answer_tokens / self.tokens)) >= self.answer_tokens


@dataclass(frozen=True)
class Cards:
    """The cards of a training, those of all nodes together, and the memory of one, in bytes, where it is known."""

    count: int
    memory: int | None


def train(job: Job) -> Trained:
    """Train with openMind, take over the weights; no conversation is cut at ``arm.cutoff_len``: see length.py."""
    from transformers import AutoTokenizer

    settings = settings_of(job)
    program, words = started_by(settings)
    check_student(job)
    tokenizer = AutoTokenizer.from_pretrained(job.student)
    check_turns(job.student, tokenizer)
    tokenizer.chat_template = chat_template(job.train.system_prompt)
    dataset = _fitting(job, tokenizer)
    rows = [row.conversation for row in dataset.rows]
    cards = cards_of(job, program, words)
    log_path = project_root() / ".cache" / "training" / f"{job.name}.log"
    name, resume = digest(job, rows, program, cards), job.run.resume
    with held_folder(job.name, name, resume, leaves="train.yaml") as held:
        check_needs(job, len(rows), cards, held.folder)
        write_inputs(job, rows, held.folder)
        output = held.folder / "output"
        checkpoint = last_checkpoint(output)
        ended = next((folder for folder in (output, checkpoint) if folder and has_ended(folder)), None)
        if ended is None:
            if checkpoint is None:  # openMind refuses a folder with anything but checkpoints
                shutil.rmtree(output, ignore_errors=True)
            command = command_line(settings, held.folder / "train.yaml")
            with registered(settings, held.folder):
                variables = environment(command[0], job, held.folder)
                # should this process be killed alone, openMind still holds the folder: nobody trains there beside it
                launch(command, variables, log_path, cwd=project_root(), holds=(held.lock,))
        state = check_written(job, len(rows), ended or output, log_path)
        _save(job, ended or output, tokenizer)
    return _trained(job, state, dataset, log_path, step_of(checkpoint), releases(program))


def settings_of(job: Job) -> OpenMind:
    """openMind's own settings."""
    assert isinstance(job.train.trainer, OpenMind)  # its kind has chosen this package
    return job.train.trainer


def check_student(job: Job) -> None:
    """TrainingError where weights are missing, or where openMind has no template for the student."""
    folder = job.student
    check_weights_there(folder)
    config = json.loads((folder / "config.json").read_bytes())
    if settings_of(job).version == "1.0.0" and config.get("model_type") not in KINDS:
        raise TrainingError(
            f"{folder}/config.json: openMind 1.0.0 has a template for {', '.join(KINDS)} alone, not for "
            f"{config.get('model_type')}. Choose another student, or train.trainer.kind: trl."
        )


def check_turns(student: Path, tokenizer: Any) -> None:
    """TrainingError where the template's own marks are no tokens of the student's, but text to it."""
    known = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    missing = [token for token in TURN if token not in known]
    if missing:
        raise TrainingError(
            f"{student}: its tokenizer has no token {missing[0]}, which openMind's template qwen writes around every "
            "turn. Choose another student, or train.trainer.kind: trl."
        )


def digest(job: Job, rows: list[Conversation], program: str, cards: Cards) -> str:
    """Of all that shapes the weights: another release, another number of cards make another training."""
    settings = settings_of(job).model_dump(exclude=_SHAPELESS)
    settings["extra"] = {key: value for key, value in settings["extra"].items() if not key.startswith("save_")}
    deepspeed = deepspeed_file(job.train.deepspeed)
    return short_hash(
        {
            "rows": [sample(row, job.train.system_prompt) for row in rows],
            "train": job.train.model_dump(exclude=SHAPELESS | {"trainer": True}),
            "openmind": settings,
            "deepspeed": hashlib.sha256(Path(deepspeed).read_bytes()).hexdigest() if deepspeed else None,
            "arm": job.arm.model_dump(exclude={"dataset"}),
            "student": files_of(job.student),
            "device": job.run.device,
            "cards": cards.count,
            "versions": releases(program),
        }
    )


def cards_of(job: Job, program: str, words: list[str]) -> Cards:
    """As torchrun will count them: NPROC_PER_NODE (or the command's option) times NNODES, else all that are seen."""
    kind = job.run.device.partition(":")[0]
    told = re.search(r"--nproc[-_]per[-_]node[ =](\d+)", " ".join(words))
    here = told[1] if told else os.environ.get("NPROC_PER_NODE")
    nodes = int(os.environ.get("NNODES") or 1)
    if kind == "cpu":  # openMind's launcher starts one process there, whatever NPROC_PER_NODE says
        return Cards(int(told[1]) if told else 1, device_memory("cpu"))
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES" if kind == "npu" else "CUDA_VISIBLE_DEVICES")
    seen, memory = probed(program, kind)
    count = int(here) if here else seen or len((visible or "0").split(","))
    return Cards(count * nodes, memory)


def probed(program: str, kind: str) -> tuple[int | None, int | None]:
    """How many cards openMind's own environment sees, and a card's memory; None where it cannot be asked."""
    python = Path(program).with_name("python")
    if not python.is_file():
        return None, None
    with suppress(OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        done = subprocess.run([python, "-c", PROBE, kind], capture_output=True, text=True, timeout=PROBE_S, check=False)
        count, memory = done.stdout.splitlines()[-1].split()
        return int(count), int(memory)
    return None, None


def check_needs(job: Job, rows: int, cards: Cards, scratch: Path) -> None:
    """TrainingError where there is nothing to do, or disk or a card's memory cannot be enough."""
    steps = planned_steps(job, rows, cards.count)
    if not steps:
        raise TrainingError(
            f"train: {job.name} would be trained for no step: {rows} rows fill no batch of {cards.count} cards. "
            "Lower train.per_device_train_batch_size, or drop dataloader_drop_last from train.trainer.extra."
        )
    size = stored_size(job.student, job.train.lora)
    fewer = "set run.checkpoint_steps: null, which writes none"
    check_room(job, size, scratch, checkpoints_at_once(job, steps), fewer)
    settings = deepspeed_file(job.train.deepspeed)
    sharing = Sharing(cards.count, zero_stage(settings) if settings else None, job.train.bf16)
    # on a CPU all ranks lie in the one memory
    there = cards.memory // cards.count if cards.memory and job.run.device == "cpu" else cards.memory
    check_cards(job, size, sharing, there)


def planned_steps(job: Job, rows: int, cards: int) -> int:
    """The optimizer's steps, as the Trainer counts them."""
    batches = rows / (job.train.per_device_train_batch_size * cards)
    whole = math.floor(batches) if settings_of(job).extra.get("dataloader_drop_last") else math.ceil(batches)
    updates = max(whole // job.train.gradient_accumulation_steps, 1) if whole else 0
    return job.arm.max_steps or math.ceil(job.arm.num_train_epochs * updates) if updates else 0


def checkpoints_at_once(job: Job, steps: int) -> int:
    """How many lie on the disk together at most: one is written at the end, and an old one goes after the new one."""
    extra, often = settings_of(job).extra, job.run.checkpoint_steps
    strategy = extra.get("save_strategy", "steps")
    if often is None or strategy == "no":
        return 0
    written = math.ceil(job.arm.num_train_epochs if strategy == "epoch" else steps / often)
    limit = extra.get("save_total_limit", 1 if job.run.resume else None)
    return min(written, limit + 1) if isinstance(limit, int) else written


def has_ended(folder: Path) -> bool:
    """Whether a killed stage left final weights there: in openMind's output, or in the checkpoint of its last step.

    openMind is not started on the latter again, for it would train a step too many.
    """
    if not list(folder.glob("*.safetensors")):
        return False
    try:
        state = _State.model_validate_json((folder / "trainer_state.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return False
    return state.global_step >= state.max_steps


def command_line(settings: OpenMind, yaml_path: Path) -> list[str]:
    """How openMind is started on a YAML: ``{yaml}`` stands for its path, else ``train PATH`` follows the command."""
    program, words = started_by(settings)
    if any("{yaml}" in word for word in words):
        return [program, *(word.replace("{yaml}", str(yaml_path)) for word in words)]
    return [program, *words, "train", str(yaml_path)]


def started_by(settings: OpenMind) -> tuple[str, list[str]]:
    """The program that params or OPENMIND_CLI name, and the words after it; TrainingError where it is absent."""
    text = settings.command or os.environ.get("OPENMIND_CLI") or "openmind-cli"
    words = [text] if Path(text).is_file() else shlex.split(text)
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise TrainingError(
            f"train.trainer.kind: openmind: no program '{text}'. Install openMind ('make openmind-env'), and name its "
            "openmind-cli in OPENMIND_CLI or in train.trainer.command."
        )
    program = str(Path(program).absolute())
    check_release(settings, program)
    return program, words[1:]


def check_release(settings: OpenMind, program: str) -> None:
    """TrainingError where another release stands beside the program than params are written for.

    Nothing is said where none is found there: a wrapper, a container, an editable install.
    """
    release = releases(program).get("openmind")
    if settings.version != "git" and release and settings.version != release:
        raise TrainingError(
            f"train.trainer.version: {settings.version}, but {program} belongs to openMind {release}. Set version "
            "git, template qwen, or install that release."
        )


def releases(program: str) -> dict[str, str]:
    """The versions that are installed beside a program, of openMind and of what trains in it."""
    found = {}
    for name in ("openmind", *LIBRARIES):
        pattern = f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"
        for path in sorted(Path(program).parents[1].glob(pattern)):
            found[name] = path.name.partition("-")[2].removesuffix(".dist-info")
    return found


def chat_template(system_prompt: str) -> str:
    """The chat template (Jinja) that gives a prompt of evaluation the text of openMind's training prompts."""
    if system_prompt == "as_system":
        system = f"{{{{ messages[0]['content'] if {_OURS} else '{_SENTENCE}' }}}}"
        before = ""
    else:
        system = _SENTENCE
        before = f"{{% if loop.index0 == 1 and {_OURS} %}}{{{{ messages[0]['content'] }}}}{SEPARATOR}{{% endif %}}"
    return _TEMPLATE.replace("{system}", system).replace("{before}", before)


def _fitting(job: Job, tokenizer: Any) -> Fitting[_Row]:
    """The conversations that openMind leaves whole, some of them made so."""
    return fitting(job, lambda conversations: _measured(job, conversations, tokenizer))


def _measured(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[_Row]:
    messages = [conversation.messages() for conversation in conversations]
    prompts = [tokenizer.apply_chat_template(m[:-1], add_generation_prompt=True, tokenize=False) for m in messages]
    texts = prompts + [conversation.assistant for conversation in conversations]
    tokens: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    check_tokens(job.student, texts, tokens)
    pairs = zip(tokens[: len(prompts)], tokens[len(prompts) :], strict=True)
    return [_Row(each, len(p), len(a) + 1) for each, (p, a) in zip(conversations, pairs, strict=True)]


def check_tokens(student: Path, texts: list[str], tokens: list[list[int]]) -> None:
    """TrainingError where openMind's transformers would train other tokens than those that ours will ask with.

    The older one does what tokenizer.json says; transformers 5 knows better for some kinds of model.
    """
    from tokenizers import Tokenizer

    path = student / "tokenizer.json"
    if not path.is_file():
        return
    literal = Tokenizer.from_file(str(path)).encode_batch(texts, add_special_tokens=False)
    for text, ours, theirs in zip(texts, tokens, literal, strict=True):
        if ours != theirs.ids:
            raise TrainingError(
                f"{path}: openMind would train {len(theirs.ids)} tokens where evaluation would see other tokens "
                f"({len(ours)}) in {text[:40]!r}…. Train on the student as published."
            )


def write_inputs(job: Job, conversations: list[Conversation], scratch: Path) -> None:
    """Write train.yaml, the dataset and its description."""
    placed = job.train.system_prompt
    dataset = json.dumps([sample(each, placed) for each in conversations], ensure_ascii=False, indent=1)
    files = {
        "train.yaml": yaml_text(training_yaml(job, scratch)),
        f"{job.arm.dataset}.json": dataset,
        "dataset_info.json": json.dumps(dataset_info(job, scratch), ensure_ascii=False, indent=1),
    }
    for name, content in files.items():
        with writing(scratch / name) as file:
            file.write(content.encode())


def sample(conversation: Conversation, system_prompt: SystemPrompt) -> dict[str, Any]:
    """A conversation as openMind reads it, its system text where params say."""
    in_turn = system_prompt == "in_user_turn" and conversation.system
    user = conversation.system + SEPARATOR + conversation.user if in_turn else conversation.user
    turns = {"conversations": [{"from": "user", "value": user}, {"from": "assistant", "value": conversation.assistant}]}
    return turns if system_prompt == "in_user_turn" else {"system": conversation.system} | turns


def dataset_info(job: Job, scratch: Path) -> dict[str, Any]:
    """The entry by which openMind finds the dataset and its fields."""
    columns = {"messages": "conversations"}
    if job.train.system_prompt == "as_system":
        columns["system"] = "system"
    entry = {
        "local_path": str(scratch),
        "file_name": f"{job.arm.dataset}.json",
        "formatting": "sharegpt",
        "columns": columns,
        "tags": TAGS | {"system_tag": "system"},
    }
    return {job.arm.dataset: entry}


def training_yaml(job: Job, scratch: Path) -> dict[str, Any]:
    """Every key of openMind's YAML; what is as openMind has it by itself is left to it."""
    params, arm, settings, run = job.train, job.arm, settings_of(job), job.run
    keys: dict[str, Any] = {
        "model_name_or_path": str(readable_by_4(job.student, scratch / "student").resolve()),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": params.finetuning.kind,
        "deepspeed": deepspeed_file(params.deepspeed),
        "dataset": arm.dataset,
        "custom_dataset_info": None if settings.merge_into else _from_root(scratch / "dataset_info.json"),
        "cutoff_len": arm.cutoff_len,
        "template": settings.template,
        "output_dir": str(scratch / "output"),
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,  # the Trainer would log 0.0
        "save_steps": run.checkpoint_steps,
        "overwrite_output_dir": not run.resume,
        "per_device_train_batch_size": params.per_device_train_batch_size,
        "learning_rate": arm.learning_rate,
        "lr_scheduler_type": params.lr_scheduler_type,
        "warmup_ratio": params.warmup_ratio,
        "bf16": params.bf16,
        "max_steps": arm.max_steps,
        "num_train_epochs": None if arm.max_steps else arm.num_train_epochs,
        "gradient_accumulation_steps": _unless(1, params.gradient_accumulation_steps),
        "weight_decay": _unless(0.0, params.weight_decay),
        "use_gradient_checkpointing": _unless(True, params.gradient_checkpointing),
        "use_cpu": _unless(False, job.run.device == "cpu"),
        "seed": params.seed,
    }
    keys |= lora_keys(params.lora) if params.lora else {}
    if run.checkpoint_steps is None:
        keys["save_strategy"] = "no"  # by itself the Trainer writes one every 500 steps
    elif run.resume and "save_total_limit" not in settings.extra:
        keys["save_total_limit"] = 1  # they are there to go on from: the last one is enough
    if twice := sorted(keys.keys() & settings.extra):
        raise TrainingError(f"train.trainer.extra: {', '.join(twice)}: params.yaml has a place of its own for it.")
    return {key: value for key, value in keys.items() if value is not None} | settings.extra


def lora_keys(lora: Lora) -> dict[str, Any]:
    """openMind's names for the adapters' settings."""
    modules = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    return {
        "lora_rank": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "lora_target_modules": "all" if modules == "all-linear" else modules,
    }


def _from_root(path: Path) -> str:
    """As openMind, started in the project's folder, finds it: the key is a list, split at commas."""
    return path.relative_to(project_root()).as_posix()


def _unless(default: Any, value: Any) -> Any:
    """None for what openMind does by itself: a key that is not written cannot be unknown to a version."""
    return None if value == default else value


def yaml_text(keys: dict[str, Any]) -> str:
    """YAML 1.1, as openMind's PyYAML reads it: a learning rate written 1e-05 would be a text there."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    yaml.default_flow_style = False
    text = StringIO()
    yaml.dump(keys, text)
    return text.getvalue()


@contextmanager
def registered(settings: OpenMind, scratch: Path) -> Iterator[None]:
    """For a version without ``custom_dataset_info``: our entry in its own dataset_info.json, for as long as it trains.

    A backup lies beside it meanwhile; one that a killed run left is the file as it was, and is kept to.
    """
    if settings.merge_into is None:
        yield
        return
    info = Path(settings.merge_into)
    if not info.is_file():
        raise TrainingError(f"train.trainer.merge_into: {info}: no such file. Name openMind's dataset_info.json.")
    backup = info.with_name(f"{info.name}.before-distillery")
    if not backup.exists():
        shutil.copy2(info, backup)
    ours = json.loads((scratch / "dataset_info.json").read_bytes())
    with writing(info) as file:
        file.write(json.dumps(json.loads(backup.read_bytes()) | ours, ensure_ascii=False, indent=2).encode())
    try:
        yield
    finally:
        backup.replace(info)


def environment(program: str, job: Job, scratch: Path) -> dict[str, str]:
    """Ours and all that is set for the cards, with what openMind needs to be found and to speak."""
    own = {
        "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # its torchrun before ours
        "HF_DATASETS_CACHE": str(scratch / "datasets"),  # its datasets is older than ours
        "OPENMIND_HIDE_STACKTRACE": "FALSE",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # newer torch refuses the older library's own checkpoints else
        "TRANSFORMERS_VERBOSITY": "info",  # then the Trainer says how many rows and which batch it sees
    }
    threads = {"OMP_NUM_THREADS": str(job.run.threads)} if job.run.device == "cpu" else {}
    return dict(os.environ) | own | threads


def check_written(job: Job, rows: int, output: Path, log_path: Path) -> _State:
    """The state of a training that left whole weights after all its steps on all rows; else TrainingError."""
    try:
        state = _State.model_validate_json((output / "trainer_state.json").read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise failure(job, "openMind did not finish", log_path) from error
    wanted = job.arm.max_steps or state.max_steps
    if state.global_step != wanted or not list(output.glob("*.safetensors")):
        ended = f"openMind ended at step {state.global_step} of {wanted}, or without weights"
        raise failure(job, ended, log_path)
    seen = logged(log_path, "Num examples")
    if seen not in (None, rows):
        raise TrainingError(f"train: openMind trained on {seen} of {rows} rows. See {log_path} for what it dropped.")
    return state


def failure(job: Job, what: str, log_path: Path) -> TrainingError:
    """What became of a training that failed; where its memory ran out, the params that take less of it."""
    if says_out_of_memory(log_path.read_text(errors="replace")):
        return TrainingError(f"train: {job.name}: openMind ran out of memory (see {log_path}). {smaller(job)}.")
    return TrainingError(f"train: {what}. {last_lines(log_path)}")


def logged(log_path: Path, name: str) -> int | None:
    """A count that the Trainer logs when it begins, such as ``Num examples = 1,000``; the last, if it began twice."""
    text = log_path.read_text(errors="replace") if log_path.is_file() else ""
    found = re.findall(rf"{name}[^=\n]*= ([0-9,]+)", text)
    return int(found[-1].replace(",", "")) if found else None


def _save(job: Job, output: Path, tokenizer: Any) -> None:
    """The final weights, merged where they are an adapter, and the tokenizer with the template of the training."""
    job.out.mkdir(parents=True)
    if job.train.lora:
        _merge(job, job.train.lora, output, tokenizer)
    else:
        save_folder(output, tokenizer, job)


def _merge(job: Job, lora: Lora, adapter: Path, tokenizer: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
    model = PeftModel.from_pretrained(student, str(adapter))
    if lora.keep_adapter:
        model.peft_config["default"].base_model_name_or_path = job.train.student.name  # not a path of this machine
        model.save_pretrained(job.out / "adapter")
    save_model(model.merge_and_unload(), tokenizer, job)


def _trained(
    job: Job, state: _State, dataset: Fitting[_Row], log_path: Path, resumed_at: int, versions: dict[str, str]
) -> Trained:
    batch = job.train.per_device_train_batch_size * job.train.gradient_accumulation_steps
    points = [
        LossPoint(entry.step, entry.loss, entry.learning_rate or 0.0)
        for entry in state.log_history
        if entry.loss is not None
    ]
    # with fewer steps than logging_steps there is the mean over all of them alone
    means = [LossPoint(e.step, e.train_loss, 0.0) for e in state.log_history if e.train_loss is not None]
    return Trained(
        rows=len(dataset.rows),
        rows_shortened=dataset.shortened,
        left_out=dataset.left_out,
        steps=state.global_step,
        epochs=round(state.epoch, 4),
        tokens_seen=round(sum(row.tokens for row in dataset.rows) * state.epoch),
        tokens_trained=round(sum(row.answer_tokens for row in dataset.rows) * state.epoch),
        effective_batch=logged(log_path, "Total train batch size") or batch,
        losses=points or means,
        resumed_at=resumed_at,
        versions=versions,
    )
