"""Print the line that serves an arm; start it, ask it three held-out questions, and compare with hf's answers.

python -m stages.lib.serving --arm filtered                                # print the line: make serve ARM=filtered
python -m stages.lib.serving --arm filtered --run                          # and start it: make serve ARM=filtered RUN=1
python -m stages.lib.serving --arm filtered --run --stop --server llama.cpp
"""

import logging
import shlex
import signal
from contextlib import suppress
from pathlib import Path

import click

from stages.lib.command import one_line_errors, params_option
from stages.lib.params import Params, load_params
from stages.lib.serving import ServingError
from stages.lib.serving.arms import Arm, answers_of, arm_of
from stages.lib.serving.asking import compared
from stages.lib.serving.lines import HOST, cards_of, line_of, llama_cpp, missing_program, vllm
from stages.lib.serving.processes import Server, started, wait_until_healthy

log = logging.getLogger("distillery.serve")

LOGS = Path(".cache/serving")


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--arm", "arm_name", required=True, help="An arm of params.yaml, or 'base' for the untrained student.")
@click.option(
    "--server", type=click.Choice(["vllm", "llama.cpp"]), default="vllm", show_default=True, help="Which one."
)
@click.option("--port", type=int, default=8000, show_default=True, help="The port on 127.0.0.1.")
@click.option("--options", default="", help='More options for the server, such as "--tensor-parallel-size 2".')
@click.option("--run", "runs", is_flag=True, help="Start the server and compare its answers.")
@click.option("--stop", "stops", is_flag=True, help="Stop the server after the comparison.")
@click.option("--questions", type=int, default=3, show_default=True, help="How many held-out questions to ask.")
@click.option("--wait-s", type=float, default=900.0, show_default=True, help="How long the server may load the model.")
@params_option
@one_line_errors
def main(
    arm_name: str,
    server: str,
    port: int,
    options: str,
    runs: bool,
    stops: bool,
    questions: int,
    wait_s: float,
    params_path: Path,
) -> None:
    params = load_params(params_path)
    arm = arm_of(arm_name, params)
    command = vllm(arm, port, params.evaluate.seed) if server == "vllm" else llama_cpp(arm, port, params.run.threads)
    command += shlex.split(options)
    click.echo(line_of(command, cards_of(params.run)))
    if not runs:
        return
    if missing := missing_program(command, params.run.device):
        raise ServingError(missing)
    serve(arm, command, port, params, questions, wait_s, stops)


def serve(arm: Arm, command: list[str], port: int, params: Params, questions: int, wait_s: float, stops: bool) -> None:
    """Serve until Ctrl-C, or until the questions are answered."""
    expected = answers_of(arm, params, questions)
    server = Server(arm.name, command, cards_of(params.run), HOST, port, LOGS / f"{arm.name}.log")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server stops with this process
    with started([server]) as (running,):
        log.info("serve: %s: loading (log: %s)", arm.name, server.log)
        wait_until_healthy([running], wait_s)
        answers = []
        for each in compared(arm, server.url, expected):
            answers.append(each)
            click.echo("\n".join(each.lines()))
        click.echo(f"{sum(each.is_same for each in answers)} of {len(answers)} answers are the same as hf's")
        if not stops:
            log.info("serve: %s: serving at %s/v1 until Ctrl-C", arm.name, server.url)
            with suppress(KeyboardInterrupt):
                running.process.wait()
                raise ServingError(running.ended())


if __name__ == "__main__":
    main()
