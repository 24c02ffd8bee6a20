"""llama.cpp's server, as the package xllamacpp has it, until it is stopped. It takes these options of llama-server.

python -m stages.lib.serving.llama_cpp --model .cache/gguf/filtered.gguf --alias filtered --host 127.0.0.1
    --port 8000 --ctx-size 640 --threads 2
"""

import signal
from pathlib import Path

import click

from stages.lib.command import READ, one_line_errors
from stages.lib.serving import ServingError

FORMATS = ("none", "auto", "deepseek")  # as llama-server's: in the text, or in reasoning_content


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--model", type=READ, required=True, help="A GGUF file.")
@click.option("--alias", required=True, help="The model's name for clients.")
@click.option("--host", required=True, help="The address to listen on.")
@click.option("--port", type=int, required=True, help="The port to listen on; 0: any free one.")
@click.option("--ctx-size", type=int, default=0, help="Tokens of prompt and answer, of all slots; 0: the model's own.")
@click.option("--parallel", type=int, default=1, show_default=True, help="Slots: requests that are computed at once.")
@click.option("--threads", type=int, required=True, help="Threads that compute.")
@click.option("--reasoning-format", type=click.Choice(FORMATS), default="none", help="Where the thought goes.")
@one_line_errors
def main(
    model: Path, alias: str, host: str, port: int, ctx_size: int, parallel: int, threads: int, reasoning_format: str
) -> None:
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
    params.n_parallel = parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    formats = xllamacpp.common_reasoning_format
    params.reasoning_format = getattr(formats, f"COMMON_REASONING_FORMAT_{reasoning_format.upper()}")
    server = xllamacpp.Server(params)
    click.echo(server.listening_address)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
