"""Train with LLaMA-Factory in its own environment: write its YAML and dataset, run it, save its weights.

In:   a job (training/__init__.py), train.trainer of params.yaml
Out:  job.out                        final weights, tokenizer, and the chat template of the training
      .cache/training/ARM.log        all output of LLaMA-Factory; its lines are on stderr too
      .cache/training/ARM/DIGEST/    while it runs: train.yaml, ARM's dataset, dataset_info.json, its output

LLaMA-Factory is started by ``train.trainer.command``, else by ``$LLAMAFACTORY_CLI``, else as ``llamafactory-cli`` of
the PATH. It inherits the whole environment: ASCEND_RT_VISIBLE_DEVICES, NPROC_PER_NODE, … On several nodes each starts
it (training/meeting.py), with NNODES, NODE_RANK, MASTER_ADDR and a MASTER_PORT that node 0 chose.

The rows are tokenized by its own code before it trains (training/external_tokens.py).

This module depends on these facts, read in the source of release 0.9.5:
- ``train.trainer.template`` names the template; one with a default system text writes it where a sample has none;
- prompt and answer are tokenized separately; what the template writes after the answer has a loss too, such as the end
  token and a newline;
- every answer of a conversation has a loss, or with ``mask_history`` only the last one (``train.loss_on: last``);
- prompts and answers longer than cutoff_len are cut: tokens/length.py handles such rows before it reads them;
- it starts torchrun itself where it sees several cards, and for DeepSpeed only with FORCE_TORCHRUN=1; on a CPU the
  number of processes is then NPROC_PER_NODE;
- it casts the trained weights to fp32 unless ``pure_bf16`` is in ``extra``.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stages.lib.trainers.llamafactory.inputs import samples, training_yaml
from stages.lib.training import Conversation, Job, Trained, external
from stages.lib.training.external import Program, inherited, run
from stages.lib.training.external_inputs import write_inputs
from stages.lib.training.external_tokens import OwnTokens, measured

PROGRAM = Program("LLaMA-Factory", "llamafactory", "LLAMAFACTORY_CLI", "llamafactory-cli", "trainer_log.jsonl")
ENCODE = Path(__file__).with_name("encode.py")
TOKENS = OwnTokens(PROGRAM, ENCODE, training_yaml, samples, "set default_system in train.trainer.extra")


def train(job: Job) -> Trained:
    """Train with LLaMA-Factory and save its weights. No conversation is cut at ``cutoff_len`` (tokens/length.py)."""
    dataset, tokenizer = measured(TOKENS, job)
    variables = partial(environment, job)
    return run(PROGRAM, job, dataset, tokenizer, partial(prepared, job), variables, processes_on_cpu(job))


def join(job: Job) -> bool:
    """Train as one of several nodes but node 0, which saves the student; False if nothing was left to train."""
    dataset, _ = measured(TOKENS, job)
    return external.join(
        PROGRAM, job, dataset, partial(prepared, job), partial(environment, job), processes_on_cpu(job)
    )


@contextmanager
def prepared(job: Job, rows: Iterable[Conversation], scratch: Path) -> Iterator[None]:
    """Write what LLaMA-Factory reads."""
    write_inputs(job, samples(job, rows), scratch, training_yaml(job, scratch))
    yield


def environment(job: Job, program: str, scratch: Path) -> dict[str, str]:
    """The inherited environment with what LLaMA-Factory needs to start as many processes as it should."""
    own = {"FORCE_TORCHRUN": "1"} if starts_torchrun(job) else {}
    if own and job.run.device == "cpu":
        own["NPROC_PER_NODE"] = str(processes_on_cpu(job))  # else the number of cards, which is 0
    return inherited(program, job, scratch) | own


def starts_torchrun(job: Job) -> bool:
    """Whether it starts torchrun whatever cards it sees."""
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in ("1", "true", "y")
    return forced or bool(job.train.deepspeed) or job.nodes.count > 1


def processes_on_cpu(job: Job) -> int:
    """The number of processes that it starts on a CPU."""
    return int(os.environ.get("NPROC_PER_NODE") or 1) if starts_torchrun(job) else 1
