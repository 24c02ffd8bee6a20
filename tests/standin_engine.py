"""A stand-in for vLLM's and SGLang's programs, which cannot run here: the options that 'make teacher' gives them.

It listens like them: /health answers 503 while it "loads", then 200; a chat completion has the thought in a field of
its own if the program was given a reasoning parser. STANDIN says what goes wrong: {"8001": "dies" | "unparsed"}, by
port; "unparsed" leaves the thought in the text, as a wrong parser does.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.standin_engine import main
main()
"""
LOADING_S = 0.3


def install(folder: Path) -> Path:
    """A folder with programs ``vllm`` and ``sglang``, for PATH."""
    folder.mkdir()
    for name in ("vllm", "sglang"):
        program = folder / name
        program.write_text(PROGRAM.format(python=sys.executable, root=str(Path(__file__).resolve().parents[1])))
        program.chmod(0o755)
    return folder


def main() -> None:
    options = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    port, name = int(options["--port"]), options["--served-model-name"]
    wrong = json.loads(os.environ.get("STANDIN", "{}")).get(str(port))
    print(f"loading {name}", flush=True)
    ready_at = time.monotonic() + LOADING_S
    if wrong == "dies":
        time.sleep(LOADING_S)
        sys.exit("torch.OutOfMemoryError: NPU out of memory. Tried to allocate 9.50 GiB")
    is_apart = "--reasoning-parser" in options and wrong != "unparsed"

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(200 if time.monotonic() > ready_at else 503, {})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if request["model"] != name:
                self.send(404, {"error": {"message": f"The model `{request['model']}` does not exist."}})
                return
            message = {"role": "assistant", "content": "The answer is 5."}
            if is_apart:
                message["reasoning"] = "2 and 3 more is 5."
            else:
                message["content"] = "<think>2 and 3 more is 5.</think>The answer is 5."
            usage = {"prompt_tokens": 12, "completion_tokens": 20}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            time.sleep(0.02)
            self.send(200, {"model": name, "choices": choices, "usage": usage})

        def send(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer((options["--host"], port), Answers).serve_forever()
