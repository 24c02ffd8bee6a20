"""Train with ms-swift in its own environment: write its YAML and dataset, run it, save its weights.

In:   a job (training/__init__.py), train.trainer of params.yaml
Out:  job.out                        final weights, tokenizer, and the chat template of the training
      .cache/training/ARM.log        all output of ms-swift; its lines are on stderr too
      .cache/training/ARM/DIGEST/    while it runs: train.yaml, ARM's dataset, its output

ms-swift is started by ``train.trainer.command``, else by ``$SWIFT_CLI``, else as ``swift`` of the PATH. It inherits the
whole environment: ASCEND_RT_VISIBLE_DEVICES, NPROC_PER_NODE, … On several nodes each starts it (training/meeting.py),
with NNODES, NODE_RANK, MASTER_ADDR and a MASTER_PORT that node 0 chose.

The rows are tokenized by its own code before it trains (training/external_tokens.py).

This module depends on these facts, read in the source of release 4.6.0:
- ``swift sft FILE`` reads a YAML only where its path is the first argument and ends in .yaml; ``--config FILE`` is not
  an option, and the model is then None;
- ``train.trainer.template`` names the template; one with a default system text writes it where a sample has none;
- ``train.trainer.model_type`` is needed where the architecture fits several of its types, as for Qwen2.5;
- every answer has a loss, or with ``loss_scale: last_round`` only the last one; what the template writes after an
  answer has a loss too, such as the end token and a newline;
- rows longer than max_length are dropped: tokens/length.py handles such rows before ms-swift reads them;
- final weights are in the last checkpoint only; a training resumes only from a checkpoint that its YAML names;
- it starts torchrun only with NPROC_PER_NODE or NNODES; else one process spreads the model over all visible cards;
- its defaults differ from transformers': weight decay, Adam's second beta, rows in a step, fp16 for weights in fp32;
- it logs in to ModelScope where MODELSCOPE_API_TOKEN is set, and caches its rows in MODELSCOPE_CACHE.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stages.lib.trainers.swift.inputs import samples, training_yaml, write_inputs
from stages.lib.training import Conversation, Job, Trained, external
from stages.lib.training.external import Program, cards_of, inherited, run
from stages.lib.training.external_inputs import settings_of
from stages.lib.training.external_tokens import OwnTokens, measured

PROGRAM = Program(
    name="ms-swift",
    kind="swift",
    variable="SWIFT_CLI",
    usual="swift",
    log="logging.jsonl",
    distribution="ms-swift",
    starts="sft",
    checks=("sft", "--help"),
    in_checkpoint=True,
)
ENCODE = Path(__file__).with_name("encode.py")
TOKENS = OwnTokens(PROGRAM, ENCODE, training_yaml, samples, "set system in train.trainer.extra")


def train(job: Job) -> Trained:
    """Train with ms-swift and save its weights. No conversation is dropped at ``cutoff_len`` (tokens/length.py)."""
    dataset, tokenizer = measured(TOKENS, job)
    return run(PROGRAM, job, dataset, tokenizer, partial(prepared, job), partial(environment, job), on_cpu())


def join(job: Job) -> bool:
    """Train as one of several nodes but node 0, which saves the student; False if nothing was left to train."""
    dataset, _ = measured(TOKENS, job)
    return external.join(PROGRAM, job, dataset, partial(prepared, job), partial(environment, job), on_cpu())


@contextmanager
def prepared(job: Job, rows: Iterable[Conversation], scratch: Path) -> Iterator[None]:
    """Write what ms-swift reads."""
    write_inputs(job, rows, scratch)
    yield


def environment(job: Job, program: str, scratch: Path) -> dict[str, str]:
    """The inherited environment with what ms-swift needs to log and to start as many processes as there are cards."""
    return inherited(program, job, scratch) | {
        "TRANSFORMERS_VERBOSITY": "info",  # then the Trainer logs its number of rows and its batch size
        "MODELSCOPE_CACHE": str(scratch / "modelscope"),
        "MODELSCOPE_API_TOKEN": "",
        **processes(job, program),
    }


def processes(job: Job, program: str) -> dict[str, str]:
    """NPROC_PER_NODE; none for one process on a CPU, unless DeepSpeed needs torchrun."""
    _, words = PROGRAM.find(settings_of(job))
    here = cards_of(job, program, words, on_cpu()).count // job.nodes.count
    alone = here == 1 and job.run.device == "cpu" and not job.train.deepspeed
    return {} if alone else {"NPROC_PER_NODE": str(here)}


def on_cpu() -> int:
    """The number of processes that it starts on a CPU."""
    return int(os.environ.get("NPROC_PER_NODE") or 1)
