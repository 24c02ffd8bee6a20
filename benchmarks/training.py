"""Training: what TRL learns from in a second, its rows padded, grouped by length or packed, beside openMind's loop.

    python -m benchmarks.training --rows 192    # with openMind where OPENMIND_CLI names its program

Each figure is of ``python -m stages.train`` on the same made rows, in full fine-tuning on one thread of the CPU. Their
lengths have the distribution of 995 of DeepSeek-R1's answers to GSM8K (524 over 1024 tokens, 47 over 2048, none over
4096: a lognormal through these), an eighth as long, and the student is a random Qwen2 of four small layers, or it would
take days here: read the ratios, which a large student on a card need not share. A step has about the same tokens in
each way. Counted is the CPU's time of a training beyond that of its first step, so the start does not count, and other
work beside it does little harm. Student, rows and outputs lie in .cache/training-bench.
"""

import json
import os
import random
import shutil
import sys
from io import StringIO
from math import exp, log
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.measuring import ROOT, machine, measured, table

FOLDER = ROOT / ".cache" / "training-bench"
SCALE = 8  # how many times shorter than the real rows
LONGEST = 4096 // SCALE
PACKS = 2  # of the longest length, in a step
OVER = {1024: 524 / 995, 2048: 47 / 995}  # the share of R1's answers over so many tokens
TOKENS_AROUND = 14  # of a row, by the chat template and the question
WAYS: dict[str, dict[str, Any]] = {
    "TRL, padded": {},
    "TRL, grouped": {"train.group_by_length": True},
    "TRL, packed": {"train.packing": True, "train.per_device_train_batch_size": PACKS},
    "openMind": {"train.backend": "openmind", "train.system_prompt": "in_user_turn"},
}


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rows", default=192, show_default=True, help="How many are trained on.")
def main(rows: int) -> None:
    click.echo(f"{machine()}\n")
    shutil.rmtree(FOLDER, ignore_errors=True)
    made_student(FOLDER / "student")
    drawn = lengths(rows, seed=3)
    made_rows(drawn, FOLDER / "rows")
    rows_a_step = max(1, round(PACKS * LONGEST / mean(drawn)))
    ways = {way: changes for way, changes in WAYS.items() if way != "openMind" or os.environ.get("OPENMIND_CLI")}
    rates = {way: rate(way, {"train.per_device_train_batch_size": rows_a_step} | ways[way]) for way in ways}
    first = rates["TRL, padded"]
    lines = [[way, f"{each:,.0f}", f"{each / first:.2f}"] for way, each in rates.items()]
    click.echo(table(["way", "trained tokens a CPU second", "times TRL, padded"], lines))
    if "openMind" not in ways:
        click.echo("\nopenMind was left out: OPENMIND_CLI names no program ('make openmind-env').")


def lengths(count: int, seed: int) -> list[int]:
    """So many lengths in tokens, as R1's answers have them, but for the scale."""
    (one, over_one), (two, over_two) = (
        (log(length), NormalDist().inv_cdf(1 - share)) for length, share in OVER.items()
    )
    sigma = (two - one) / (over_two - over_one)
    chance, found = random.Random(seed), list[int]()
    while len(found) < count:
        length = exp(chance.gauss(one - over_one * sigma, sigma)) / SCALE
        found += [round(length)] if length <= LONGEST else []
    return found


def made_student(folder: Path) -> None:
    """A random Qwen2 with a tokenizer in the form in which Qwen2.5 is published, which openMind's library reads too."""
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
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
    ends = {"eos_token_id": vocabulary.eos_token_id, "pad_token_id": vocabulary.pad_token_id}
    rows = tokenizer.get_vocab_size()
    Qwen2ForCausalLM(Qwen2Config(vocab_size=rows, num_key_value_heads=2, **sizes, **ends)).save_pretrained(folder)


def made_rows(drawn: list[int], folder: Path) -> None:
    """A dataset as convert writes it; each `` on`` of a thought is a token."""
    folder.mkdir(parents=True)
    answers = ["think" + " on" * max(1, length - TOKENS_AROUND) for length in drawn]
    turns = [[{"from": "user", "value": "think"}, {"from": "assistant", "value": answer}] for answer in answers]
    samples = [{"conversations": each} for each in turns]
    (folder / "rows.json").write_text(json.dumps(samples))
    tags = YAML(typ="safe").load(ROOT / "profiles/embedded.yaml")["convert"]["tags"]
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"tags": tags}}))


def rate(way: str, changes: dict[str, Any]) -> float:
    """Trained tokens a second of the CPU, beyond the first step."""
    name = "".join(letter for letter in way.lower() if letter.isalpha())
    first, whole = (trained(f"{name}-{steps or 'all'}", changes, steps) for steps in (1, None))
    return (whole[0] - first[0]) / (whole[1] - first[1])


def trained(name: str, changes: dict[str, Any], max_steps: int | None) -> tuple[int, float]:
    """The tokens with a loss that a training saw, and the CPU's seconds."""
    own = {"train.student.source": "path", "train.student.name": str(FOLDER / "student"), "run.threads": 1}
    own |= {"train.finetuning_type": "full", "arms.filtered.cutoff_len": LONGEST, "arms.filtered.max_steps": max_steps}
    write_params(own | changes, FOLDER / f"{name}.yaml")
    files = {"dataset": FOLDER / "rows", "model": FOLDER / "model", "metrics": FOLDER / f"{name}.json"}
    files |= {"left-out": FOLDER / "left_out.jsonl", "loss": FOLDER / "loss.csv", "params": FOLDER / f"{name}.yaml"}
    words = [word for key, path in files.items() for word in (f"--{key}", str(path))]
    command = [sys.executable, "-m", "stages.train", "--arm", "filtered", *words]
    used = measured(command, FOLDER / f"{name}.log", {"DVC_ROOT": str(FOLDER), "OMP_NUM_THREADS": "1"})
    return json.loads(files["metrics"].read_bytes())["tokens_trained"], used.cpu_s


def write_params(changes: dict[str, Any], path: Path) -> None:
    """The embedded profile with these values in it."""
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
