"""llama.cpp's server, as the package xllamacpp has it, until it is stopped. It takes these options of llama-server.

python -m stages.lib.serving.llama_cpp --model .cache/gguf/filtered.gguf --alias filtered --host 127.0.0.1
    --port 8000 --ctx-size 640 --threads 2
"""

import signal
from pathlib import Path

import click

from stages.lib.command import READ, one_line_errors
from stages.lib.serving import ServingError


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--model", type=READ, required=True, help="A GGUF file.")
@click.option("--alias", required=True, help="The model's name for clients.")
@click.option("--host", required=True, help="The address to listen on.")
@click.option("--port", type=int, required=True, help="The port to listen on; 0: any free one.")
@click.option("--ctx-size", type=int, required=True, help="Tokens of prompt and answer.")
@click.option("--threads", type=int, required=True, help="Threads that compute.")
@one_line_errors
def main(model: Path, alias: str, host: str, port: int, ctx_size: int, threads: int) -> None:
    try:
        import xllamacpp
    except ImportError as error:
        raise ServingError(f"xllamacpp: {error}. Run 'make setup', or put llama-server on PATH.") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {alias}
    params.hostnames = [host]
    params.port = port
    params.n_ctx = ctx_size
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    server = xllamacpp.Server(params)
    click.echo(server.listening_address)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
