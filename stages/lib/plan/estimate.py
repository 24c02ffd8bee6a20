"""The arithmetic of a plan: from the number of questions through the yields to each stage's needs.

plan(params, 1e6, Units({}), teacher_cards=0)    → Plan([Line("distill", "requests", Range(…), ""), …], notes=[…])
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.lib.doctor.disk_and_memory import CHECKPOINT, checkpoints_at_once, memory_needed, number_of_weights
from stages.lib.doctor.needs import local_student
from stages.lib.params import Arm, EmbeddedTeacher, Params, PresetSource, Role, audit_of, judge_of
from stages.lib.plan.units import NOTHING, Range, Units, exactly
from stages.lib.runtime.devices import split
from stages.lib.training import TrainingError
from stages.lib.training.launching import zero_of
from stages.lib.training.resources import Sharing, Size

GB = 1e9
HOUR = 3600
LARGE_MODEL = 3e9  # weights from which loading takes minutes
ROLES: dict[str, Role] = {"distill": "teacher", "filter": "judge"}
MARKED_BY_JUDGE = ("judge", "both", "judge_rubric")
OF_ALL, OF_KEPT = "data/distilled.jsonl", ("data/filtered.jsonl", "data/control.jsonl")
GENERATED = {"gsm8k": 1319, "mgsm_cot_native": 2750, "mgsm_direct": 2750}  # questions that are answered in words
CHOSEN = {"mmlu": 14042}  # questions whose choices are only read
CHOICE_TOKENS = 4 * 150


@dataclass(frozen=True)
class Line:
    """What a stage needs of one thing."""

    stage: str
    what: str
    value: Range
    unit: str = ""


@dataclass
class Plan:
    """All lines, and what is not in them."""

    questions: float
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def total(self, what: str) -> Range:
        """The sum over the stages; of memory and cards the largest."""
        values = [line.value for line in self.lines if line.what == what]
        if what in ("memory", "card memory", "cards"):
            return Range(*(max((getattr(value, end) for value in values), default=0) for end in ("low", "mid", "high")))
        return sum(values, NOTHING)

    def of(self, stage: str, what: str) -> Range:
        """One line's value; 0 where there is none."""
        return next((line.value for line in self.lines if (line.stage, line.what) == (stage, what)), NOTHING)


def plan(params: Params, questions: float, units: Units, teacher_cards: int = 0) -> Plan:
    """The plan of a run that draws so many questions; with ``teacher_cards`` the teacher is one's own."""
    found = _Planner(params, questions, units, teacher_cards)
    return found.plan()


class _Planner:
    def __init__(self, params: Params, questions: float, units: Units, teacher_cards: int) -> None:
        self.params, self.units, self.teacher_cards = params, units, teacher_cards
        self.found = Plan(questions)
        self.teacher = params.distill.teacher
        self.is_embedded = isinstance(self.teacher, EmbeddedTeacher)
        source = params.collect.source
        named = [source.name] if isinstance(source, PresetSource) else []
        self.variants = ["embedded"] if self.is_embedded else named
        self.weights = number_of_weights(params)
        self.on_cpu = split(params.run.device)[0] == "cpu"
        self.cards = 0 if self.on_cpu else params.run.processes

    def plan(self) -> Plan:
        """All stages in their order."""
        questions = self.collect()
        answered, answer_tokens = self.distill(questions)
        kept = self.filter(answered, answer_tokens)
        rows = self.convert(answered, kept, answer_tokens)
        self.train(rows)
        self.evaluate(answer_tokens)
        if self.params.prefer:
            self.found.notes.append("prefer's requests are not counted")
        if self.params.score:
            self.found.notes.append("score is not counted")
        return self.found

    def add(self, stage: str, what: str, value: Range, unit: str = "") -> None:
        self.found.lines.append(Line(stage, what, value, unit))

    def collect(self) -> Range:
        drawn = exactly(self.found.questions)
        rows = drawn * self.units.take("yield.collected", self.variants)
        self.add("collect", "rows", rows)
        self.add("collect", "disk", rows * self.units.take("row_bytes") * (2 / GB), "GB")
        self.add("collect", "memory", (drawn * self.units.take("rows_memory_bytes") * (1 / GB)) + exactly(0.3), "GB")
        hard = self.params.collect.keep_hard
        if not hard:
            return rows
        self.add("difficulty", "requests", rows * hard.samples)
        self.found.notes.append("difficulty: its hours are not counted (docs/difficulty.md)")
        rows = rows * self.units.take("yield.hard")
        self.add("difficulty", "rows", rows)
        return rows

    def distill(self, questions: Range) -> tuple[Range, Range]:
        """The answered rows, and the tokens of an answer."""
        params, run, units = self.params, self.params.run, self.units
        requests = questions * params.distill.samples_per_question
        prompt, answer = units.take("prompt_tokens", self.variants), units.take("answer_tokens", self.variants)
        if self.teacher.max_tokens:
            answer = answer.at_most(self.teacher.max_tokens)
        answered = requests * units.take("yield.answered", self.variants)
        self.add("distill", "requests", requests)
        self.add("distill", "prompt tokens", requests * prompt)
        self.add("distill", "answer tokens", requests * answer)
        self.add("distill", "rows", answered)
        self._asking("distill", self.teacher.model, requests, prompt, answer)
        bpt = units.take("bytes_per_token", self.variants)
        own = units.take("row_bytes") + units.take("store_bytes")
        self.add("distill", "disk", requests * (own + answer * bpt * 2.0) * (1 / GB), "GB")
        if run.budget is not None:
            self.found.notes.append(f"run.budget of each stage is {run.budget:,.0f} {run.currency}")
        return answered, answer

    def _asking(self, stage: str, model: str, requests: Range, prompt: Range, answer: Range) -> None:
        """Cost and hours of requests to a provider; hours and cards, if the model is one's own."""
        if self.teacher_cards and model == self.teacher.model:
            speed = self.units.take("card_tokens_per_s", [self._teacher_size()]) * self.teacher_cards
            self.add(stage, "hours", (requests * answer).over(speed) * (1 / HOUR), "h")
            self.add(stage, "cards", exactly(self.teacher_cards))
            return
        self._cost(stage, model, requests * prompt, requests * answer)
        if batch := self.params.run.batch_of(ROLES[stage]):
            self.found.notes.append(f"{stage}: no hours, it asks in batches of {batch.completion_window} each")
            return
        self.add(stage, "hours", self._asking_hours(requests, prompt + answer, answer), "h")

    def _teacher_size(self) -> str:
        name = self.teacher.model.lower()
        return "671b" if "deepseek" in name and "distill" not in name else "32b"

    def _cost(self, stage: str, model: str, prompt: Range, answer: Range) -> None:
        price = self.params.run.price(model, ROLES[stage])
        if price:
            cost = (prompt * price.input + answer * price.output) * 1e-6
            self.add(stage, "cost", cost, self.params.run.currency)
        elif not self.is_embedded:
            self.found.notes.append(f"{stage}: no cost, because run.prices has no price of {model}")

    def _asking_hours(self, requests: Range, tokens: Range, answer: Range) -> Range:
        """The time of so many requests at run.concurrency, within the rate limits."""
        run = self.params.run
        if self.is_embedded and run.embedded:
            seconds = self.units.take("latency_s", ["embedded"]) * run.embedded.latency_s
        else:
            seconds = answer.over(self.units.take("stream_tokens_per_s"))
        hours = requests * seconds * (1 / run.concurrency / HOUR)
        if run.requests_per_minute:
            hours = hours.at_least(requests * (1 / run.requests_per_minute / 60))
        if run.tokens_per_minute:
            hours = hours.at_least(requests * tokens * (1 / run.tokens_per_minute / 60))
        return hours

    def filter(self, answered: Range, answer_tokens: Range) -> Range:
        """The kept rows."""
        params, units = self.params, self.units
        judge, strategy = judge_of(params.filter), params.filter.strategy
        if judge:
            audited, _ = audit_of(params.filter)
            marked = exactly(1.0) if strategy in MARKED_BY_JUDGE else exactly(audited)
            if strategy == "rule_then_judge":
                marked = units.take("yield.judged").at_least(audited)
            requests = answered * marked
            prompt = units.take("prompt_tokens", self.variants) + answer_tokens
            reply = units.take("judge_tokens")
            self.add("filter", "requests", requests)
            self.add("filter", "prompt tokens", requests * prompt)
            self.add("filter", "answer tokens", requests * reply)
            self._asking("filter", judge.model, requests, prompt, reply)
        kept = answered * self._right()
        samples = params.distill.samples_per_question
        if samples > 1 and params.filter.select != "all_correct":
            kept = kept.at_most(answered * (1 / samples))
        self.add("filter", "rows", kept)
        bpt, own = units.take("bytes_per_token", self.variants), units.take("row_bytes")
        self.add("filter", "disk", (answered + kept) * (own + answer_tokens * bpt) * (1 / GB), "GB")
        return kept

    def _right(self) -> Range:
        right = self.units.take("yield.right", self.variants)
        if isinstance(self.teacher, EmbeddedTeacher) and "yield.right.embedded" in self.units.used:
            right = right * (1 - self.teacher.slip_share)
        return right.at_most(1.0)

    def convert(self, answered: Range, kept: Range, answer_tokens: Range) -> dict[str, tuple[Range, Range]]:
        """For each dataset that is made of the teacher's answers its rows, and the tokens of one."""
        known = {OF_ALL: answered, **dict.fromkeys(OF_KEPT, kept)}
        tokens = self._row_tokens(answer_tokens)
        found = {}
        for name, dataset in self.params.datasets.items():
            if dataset.rows not in known:
                self.found.notes.append(
                    f"datasets.{name}: {dataset.rows} is not made of the teacher's answers; not counted"
                )
                continue
            found[name] = (known[dataset.rows], tokens)
        total = sum((rows for rows, _ in found.values()), NOTHING)
        self.add("convert", "rows", total)
        self.add("convert", "tokens", total * tokens)
        bpt = self.units.take("bytes_per_token", self.variants)
        self.add("convert", "disk", total * tokens * bpt * (1 / GB), "GB")
        return found

    def _row_tokens(self, answer_tokens: Range) -> Range:
        """The student's tokens of a row."""
        measured = self.units.measured("row_tokens")
        return measured or answer_tokens + self.units.take("overhead_tokens", self.variants)

    def train(self, rows: dict[str, tuple[Range, Range]]) -> None:
        params = self.params
        arms = {name: arm for name, arm in params.arms.items() if arm.dataset in rows}
        if params.on_policy:
            self.found.notes.append(f"on-policy arms are not counted: {', '.join(params.on_policy)}")
        per_arm = [self._steps_and_tokens(arm, *rows[arm.dataset]) for arm in arms.values()]
        self.add("train", "arms", exactly(len(arms)))
        self.add("train", "steps", sum((steps for steps, _ in per_arm), NOTHING))
        tokens = sum((each for _, each in per_arm), NOTHING)
        self.add("train", "tokens", tokens)
        if self.weights is None:
            self.found.notes.append(
                f"train and evaluate: no hours, the size of {params.train.student.name} is not known"
            )
            return
        start = self.units.take("training_start_s", self._large())
        hours = tokens.over(self._tokens_per_s()) + start * len(arms)
        self.add("train", "hours", hours * (1 / HOUR), "h")
        self._disk_and_memory(len(arms))

    def _steps_and_tokens(self, arm: Arm, rows: Range, tokens: Range) -> tuple[Range, Range]:
        train = self.params.train
        batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
        if train.trainer.kind != "trl":  # there, gradient_accumulation_steps is of all cards together
            batch *= max(1, self.cards)
        tokens = tokens.at_most(arm.cutoff_len)
        if arm.max_steps:
            return exactly(arm.max_steps), tokens * (arm.max_steps * batch)
        steps = Range(*(math.ceil(getattr(rows, end) * arm.num_train_epochs / batch) for end in ("low", "mid", "high")))
        return steps, rows * tokens * arm.num_train_epochs

    def _tokens_per_s(self) -> Range:
        """Trained tokens a second on all cards: 6 operations a weight and token, 4 with LoRA, 2 more if recomputed."""
        train = self.params.train
        operations = (6 if train.lora is None else 4) + (2 if train.gradient_checkpointing else 0)
        kind, _ = split(self.params.run.device)
        rate = self.units.take("teraflops", [kind]) * (1e12 * max(1, self.cards))
        assert self.weights
        return rate.over(self.units.take("padding", self.variants) * (operations * self.weights))

    def _large(self) -> list[str]:
        return ["7b"] if self.weights and self.weights > LARGE_MODEL else []

    def _disk_and_memory(self, arms: int) -> None:
        params, weights = self.params, self.weights
        assert weights
        train = params.train
        copies = arms + (local_student(train.student) is None)
        model = weights * (2 if train.bf16 and train.deepspeed else 4) * copies
        kept = 0.0 if train.lora else weights * CHECKPOINT * checkpoints_at_once(params)
        self.add("train", "disk", exactly((model + kept) / GB), "GB")
        if needed := memory_needed(params):
            self.add("train", "memory", Range(needed, needed * 1.1, needed * 1.5) * (1 / GB), "GB")
        if self.cards:
            trained = int(weights if train.lora is None else weights / 100)
            fsdp2 = bool(getattr(train.trainer, "fsdp2", False))
            sharing = Sharing(self.cards, self._zero(), train.bf16, fsdp2)
            card = sum(sharing.bytes_per_card(Size(int(weights), trained))) / GB
            self.add("train", "card memory", Range(card, card + 8, card + 24), "GB")
            self.add("train", "cards", exactly(self.cards))

    def _zero(self) -> int | None:
        """DeepSpeed's ZeRO stage; the one in the file's name where the file is another project's."""
        name = self.params.train.deepspeed
        try:
            return zero_of(name)
        except TrainingError:
            found = re.search(r"z(?:ero)?_?([123])", Path(name or "").name)
            return int(found[1]) if found else None

    def evaluate(self, answer_tokens: Range) -> None:
        params = self.params
        arms, settings = 1 + len(params.trained_arms), params.evaluate
        generated, chosen = self._questions()
        self.add("evaluate", "answers", exactly(arms * generated))
        if self.weights is None:
            return
        tokens = answer_tokens
        if self.is_embedded:
            tokens = self.units.take("student_answer_tokens", self.variants)
        tokens = tokens.at_most(settings.max_gen_toks)
        start = self.units.take("evaluation_start_s", self._large())
        cards = max(1, self.cards)
        if settings.backend.kind == "hf":
            step = self.units.take("hf_step_s", ["cpu"] if self.on_cpu else []) * (
                self.weights / 1e9 if self.on_cpu else 1.0
            )
            batches = math.ceil(generated / (settings.backend.batch_size * cards))
            longest = (tokens * self.units.take("longest_of_a_batch")).at_most(settings.max_gen_toks)
            base = self.units.take("untrained_ends") * settings.max_gen_toks
            seconds = (longest * (arms - 1) + base) * step * batches
        else:
            seconds = (tokens * (arms * generated)).over(self.units.take("served_tokens_per_s") * cards)
        if chosen:
            seconds = seconds + exactly(arms * chosen * CHOICE_TOKENS).over(
                self.units.take("read_tokens_per_s") * cards
            )
        self.add("evaluate", "hours", (seconds + start * arms) * (1 / HOUR), "h")
        if self.cards:
            self.add("evaluate", "cards", exactly(self.cards))

    def _questions(self) -> tuple[int, int]:
        """How many questions of the benchmarks are answered, and how many have choices."""
        settings = self.params.evaluate
        sizes = {
            "heldout": self.params.collect.heldout_size,
            "preference": self.params.collect.heldout_size,
            **GENERATED,
        }
        unknown = [name for name in settings.benchmarks if name not in sizes and name not in CHOSEN]
        if unknown:
            self.found.notes.append(f"evaluate: of unknown size and not counted: {', '.join(unknown)}")
        limit = settings.limit or 10**9
        return (
            sum(min(limit, sizes[name]) for name in settings.benchmarks if name in sizes),
            sum(min(limit, CHOSEN[name]) for name in settings.benchmarks if name in CHOSEN),
        )


def card_hours(found: Plan) -> Range:
    """The hours of each stage times its cards."""
    stages = {line.stage for line in found.lines if line.what == "cards"}
    return sum((found.of(stage, "hours") * found.of(stage, "cards") for stage in sorted(stages)), NOTHING)


def totals(found: Plan) -> Iterator[Line]:
    """The sums over all stages; of memory and cards the largest."""
    lines: dict[str, str] = {line.what: line.unit for line in found.lines}
    for what in (
        "requests",
        "prompt tokens",
        "answer tokens",
        "cost",
        "hours",
        "disk",
        "memory",
        "card memory",
        "cards",
    ):
        if what in lines:
            yield Line("total", what, found.total(what), lines[what])
    if "cards" in lines:
        yield Line("total", "card hours", card_hours(found), "h")


def as_json(found: Plan, units: Units) -> dict[str, Any]:
    """The plan for programs."""
    lines = [*found.lines, *totals(found)]
    return {
        "questions": found.questions,
        "lines": [
            {"stage": line.stage, "what": line.what, "low": line.value.low, "mid": line.value.mid}
            | {"high": line.value.high, "unit": line.unit}
            for line in lines
        ],
        "units": {name: unit.model_dump() for name, unit in sorted(units.used.items())},
        "notes": found.notes,
    }
