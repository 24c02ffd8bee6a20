r"""Compare two expressions with math-verify, in a worker process with a time-out.

    same_expression(r"2\sqrt{3}", r"\sqrt{12}")  → True;  None where it cannot decide

math-verify's own time-outs need a process's main thread, and they do not end a long step inside one big power. So it
runs in a process of its own with limited memory. The process starts at the first expression. When a result is late, the
process is killed, and the next expression starts a new one.
"""

import json
import os
import re
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from select import select

LONGEST = 300  # characters of an expression worth comparing
MEMORY = 4 * 2**30  # bytes of address space that the worker may map
STARTING_TIMEOUT_S = 120  # importing sympy on a busy machine
TIMEOUT_S, INNER_TIMEOUT_S = 15, 3  # for one pair; for each of its three steps inside math-verify
HUGE_NUMBER = re.compile(r"\^[^,;=]{0,40}\^|\*\*[^,;=]{0,40}\*\*|\d{5,}\s*!|\^\s*\{?\s*\d{5,}|!\s*\)*\s*!")  # 9^{9^9}
SQRT_CALL = re.compile(r"\\sqrt\s?\(([^()]*)\)")  # \sqrt(2), which LaTeX reads as \sqrt{(}


class Worker:
    """One process that runs math-verify on one pair at a time. It ends when its pipe closes, so with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def compare(self, gold: str, prediction: str) -> bool | None:
        """Whether two expressions are the same; None where no result came in time."""
        with self._lock:
            if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
                self.close()
                # -P: modules in this file's folder must not shadow those of the standard library
                command = [sys.executable, "-P", str(Path(__file__).resolve())]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                self._owner = os.getpid()
                self._line("", STARTING_TIMEOUT_S)
            same: bool | None = json.loads(self._line(json.dumps([gold, prediction]) + "\n", TIMEOUT_S) or "null")
            return same

    def close(self) -> None:
        """End the process, if this process started it."""
        if self._process and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _line(self, question: str, timeout_s: float) -> str | None:
        """The worker's next line. Where it is late or the worker has ended: None, and the worker is closed."""
        try:
            if self._process and self._process.stdin and self._process.stdout:
                self._process.stdin.write(question)
                self._process.stdin.flush()
                if select([self._process.stdout], [], [], timeout_s)[0] and (line := self._process.stdout.readline()):
                    return line
        except OSError:
            pass  # the worker ended: no result
        self.close()
        return None


worker = Worker()


@lru_cache(maxsize=1024)
def same_expression(gold: str, prediction: str) -> bool | None:
    """Whether math-verify finds two LaTeX expressions equal; None: too long, too large, not parsed or too late."""
    gold, prediction = (SQRT_CALL.sub(r"\\sqrt{\1}", text) for text in (gold, prediction))
    if max(len(gold), len(prediction)) > LONGEST or HUGE_NUMBER.search(f"{gold};{prediction}"):
        return None
    return worker.compare(gold, prediction)


def serve() -> None:
    """The worker: a line [gold, prediction] in, a line true, false or null out."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from math_verify import parse, verify  # type: ignore[import-untyped]

    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            pair = json.loads(line)
            gold, found = (parse(f"${text}$", parsing_timeout=INNER_TIMEOUT_S, raise_on_error=True) for text in pair)
            timeout = {"timeout_seconds": INNER_TIMEOUT_S, "raise_on_error": True}
            answer = bool(verify(gold, found, **timeout)) if gold and found else None
        except Exception:  # a parser may raise anything on a hostile text; the result is always: not known
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
