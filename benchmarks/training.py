"""Measure training speed: TRL with rows padded, grouped by length or packed, next to openMind's loop.

    python -m benchmarks.training --rows 64 --rounds 3    # with openMind where OPENMIND_CLI names its program

Each figure is for ``python -m stages.train`` on the same generated rows, with full fine-tuning on one CPU thread.

    rows       their lengths follow 995 full answers of DeepSeek-R1 to GSM8K: a lognormal through the share over 1024
               tokens (524) and over 2048 (47), none over 4096
    student    a random Qwen2 with two small layers; a larger one would take days, so read the ratios only
    time       the CPU time of a training without that of its first step, so the start does not count, and other
               programs have little effect
    rounds     the ways alternate; the table has the median and the range of each one over the rounds

In such a small student, attention is most of the arithmetic; in one of 7B it is a tenth. So padding costs more here
than there, where it costs about its share of the positions, and so does the attention within a long pack. A step has
about the same number of tokens in each way. Student, rows and outputs are in .cache/training-bench.
"""

import json
import os
import random
import shutil
import sys
from dataclasses import dataclass, field
from io import StringIO
from math import exp, log
from pathlib import Path
from statistics import NormalDist, mean, median
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.measuring import ROOT, machine, measured, table

FOLDER = ROOT / ".cache" / "training-bench"
LONGEST = 4096
PACKS = 2  # of the longest length, in a step
OVER = {1024: 524 / 995, 2048: 47 / 995}  # the share of R1's answers over this many tokens
TOKENS_AROUND = 14  # per row, from the chat template and the question
OPENMIND = "openMind"
OPENMINDS: dict[str, Any] = {
    "kind": "openmind",
    "version": "1.0.0",
    "command": None,
    "template": None,
    "merge_into": None,
}
OPENMINDS |= {"logging_steps": 1, "extra": {}}
WAYS: dict[str, dict[str, Any]] = {
    "TRL, padded": {},
    "TRL, grouped": {"train.trainer.group_by_length": True},
    # one pack at a time: the packs of a device's batch become one sequence, whose mask grows with its square
    "TRL, packed": {
        "train.trainer.packing": True,
        "train.per_device_train_batch_size": 1,
        "train.gradient_accumulation_steps": PACKS,
    },
    OPENMIND: {"train.trainer": OPENMINDS, "train.system_prompt": "in_user_turn"},
}


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", default=64, show_default=True, help="How many rows are trained on.")
@click.option("--rounds", default=3, show_default=True, help="How often each way is measured.")
def main(rows: int, rounds: int) -> None:
    click.echo(f"{machine()}\n")
    shutil.rmtree(FOLDER, ignore_errors=True)
    made_student(FOLDER / "student")
    drawn = lengths(rows, seed=3)
    made_rows(drawn, FOLDER / "rows")
    rows_a_step = max(1, round(PACKS * LONGEST / mean(drawn)))
    click.echo(f"{rows} rows, {lengths_text(drawn)}; {rows_a_step} a step.\n")
    ways = {way: changes for way, changes in WAYS.items() if way != OPENMIND or os.environ.get("OPENMIND_CLI")}
    found = measured_ways({way: {"train.per_device_train_batch_size": rows_a_step} | ways[way] for way in ways}, rounds)
    base = OPENMIND if OPENMIND in ways else "TRL, padded"
    lines = [
        [way, *each.cells(), f"{median(each.rates) / median(found[base].rates):.2f}"] for way, each in found.items()
    ]
    click.echo(table(["way", "trained tokens a CPU second", "range", "padding", f"times {base}"], lines))
    if OPENMIND not in ways:
        click.echo("\nopenMind was left out: OPENMIND_CLI names no program ('make openmind-env').")


def lengths_text(drawn: list[int]) -> str:
    """A text that describes the lengths, to compare with the distribution that they are drawn from."""
    over = " and ".join(f"{sum(each > length for each in drawn) / len(drawn):.0%} over {length}" for length in OVER)
    return f"of {mean(drawn):.0f} tokens on average, {over}, the longest {max(drawn)}"


def lengths(count: int, seed: int) -> list[int]:
    """``count`` lengths in tokens, at even quantiles of the distribution of R1's answers, in a random order."""
    (one, over_one), (two, over_two) = (
        (log(length), NormalDist().inv_cdf(1 - share)) for length, share in OVER.items()
    )
    sigma = (two - one) / (over_two - over_one)
    answers = NormalDist(one - over_one * sigma, sigma)
    whole = answers.cdf(log(LONGEST))
    found = [round(exp(answers.inv_cdf((place + 0.5) / count * whole))) for place in range(count)]
    random.Random(seed).shuffle(found)
    return found


def made_student(folder: Path) -> None:
    """Make a random Qwen2 whose tokenizer has the form of the published Qwen2.5, which openMind's library can read."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer, set_seed

    set_seed(3)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    qwen = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = qwen.normalizer, qwen.pre_tokenizer, qwen.decoder
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["think on and on", "You are a helpful assistant.", "system user assistant"],
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet),
    )
    vocabulary = Qwen2Tokenizer(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    vocabulary.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    vocabulary.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"eos_token_id": vocabulary.eos_token_id, "pad_token_id": vocabulary.pad_token_id}
    rows = tokenizer.get_vocab_size()
    Qwen2ForCausalLM(Qwen2Config(vocab_size=rows, num_key_value_heads=2, **sizes, **ends)).save_pretrained(folder)


def made_rows(drawn: list[int], folder: Path) -> None:
    """Make a dataset as convert writes it; each `` on`` in a thought is a token."""
    folder.mkdir(parents=True)
    answers = ["think" + " on" * max(1, length - TOKENS_AROUND) for length in drawn]
    turns = [[{"from": "user", "value": "think"}, {"from": "assistant", "value": answer}] for answer in answers]
    samples = [{"conversations": each} for each in turns]
    (folder / "rows.json").write_text(json.dumps(samples))
    tags = YAML(typ="safe").load(ROOT / "profiles/embedded.yaml")["convert"]["tags"]
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"tags": tags}}))


@dataclass
class Measured:
    """A way's trained tokens per CPU second in each round, and the share of padding in its batches."""

    rates: list[float] = field(default_factory=list)
    padding: float | None = None

    def cells(self) -> list[str]:
        """Median, range and padding, as cells of the table."""
        padding = "not said" if self.padding is None else f"{self.padding:.0%}"
        return [f"{median(self.rates):,.0f}", f"{min(self.rates):,.0f} – {max(self.rates):,.0f}", padding]


def measured_ways(ways: dict[str, dict[str, Any]], rounds: int) -> dict[str, Measured]:
    """Measure each way, without the start and the first step of its training."""
    first = {way: trained(f"{_name(way)}-1", changes, 1) for way, changes in ways.items()}
    found = {way: Measured() for way in ways}
    for _ in range(rounds):
        for way, changes in ways.items():
            tokens, seconds, found[way].padding = trained(f"{_name(way)}-all", changes, None)
            found[way].rates.append((tokens - first[way][0]) / (seconds - first[way][1]))
            click.echo(f"{way}: {found[way].rates[-1]:,.0f} tokens a CPU second", err=True)
    return found


def _name(way: str) -> str:
    return "".join(letter for letter in way.lower() if letter.isalpha())


def trained(name: str, changes: dict[str, Any], max_steps: int | None) -> tuple[int, float, float | None]:
    """Run a training; return its tokens with a loss, its CPU seconds, and TRL's share of padding."""
    own = {"train.student": {"kind": "path", "name": str(FOLDER / "student")}, "run.threads": 1}
    own |= {
        "train.finetuning": {"kind": "full"},
        "arms.filtered.cutoff_len": LONGEST,
        "arms.filtered.max_steps": max_steps,
    }
    write_params(own | changes, FOLDER / f"{name}.yaml")
    files = {"dataset": FOLDER / "rows", "model": FOLDER / "model", "metrics": FOLDER / f"{name}.json"}
    files |= {"left-out": FOLDER / "left_out.jsonl", "loss": FOLDER / "loss.csv", "params": FOLDER / f"{name}.yaml"}
    words = [word for key, path in files.items() for word in (f"--{key}", str(path))]
    command = [sys.executable, "-m", "stages.train", "--arm", "filtered", *words]
    used = measured(command, FOLDER / f"{name}.log", {"DVC_ROOT": str(FOLDER), "OMP_NUM_THREADS": "1"})
    facts = json.loads((FOLDER / "metrics" / "runs" / "train-filtered.json").read_bytes())
    return json.loads(files["metrics"].read_bytes())["tokens_trained"], used.cpu_s, facts.get("padding_share")


def write_params(changes: dict[str, Any], path: Path) -> None:
    """Write the embedded profile with these changes."""
    yaml = YAML()
    params = yaml.load((ROOT / "profiles" / "embedded.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = params
        for each in sections:
            section = section[each]
        section[last] = value
    text = StringIO()
    yaml.dump(params, text)
    path.write_text(text.getvalue())


if __name__ == "__main__":
    main()
