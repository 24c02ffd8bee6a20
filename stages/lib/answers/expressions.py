"""Expressions compared by math-verify, in a worker process that may be stopped: a hostile one costs a time-out.

    same_expression("2\\\\sqrt{3}", "\\\\sqrt{12}")  → True;  None where it cannot say

math-verify's own time-outs need a process's main thread and do not end a long step inside one big power, so it runs
in a process of its own, asked over its pipes, with limited memory, and killed and started anew when an answer is late.
Started at the first expression only: numbers never come here.
"""

import atexit
import json
import os
import re
import selectors
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

LONGEST = 300  # characters of an expression worth comparing
MEMORY = 4 * 2**30  # bytes of address space that the worker may map
INNER_TIMEOUT_S = 3
STARTING_TIMEOUT_S = 120  # importing sympy on a busy machine
TIMEOUT_S = 15  # parsing twice and comparing, each with math-verify's own time-out
TOWER = re.compile(r"\^[^,;=]{0,40}\^|\*\*[^,;=]{0,40}\*\*|\d{5,}\s*!|\^\s*\{?\s*\d{5,}|!\s*\)*\s*!")  # 9^{9^9}


class Worker:
    """One process with math-verify in it; answers one pair at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def compare(self, gold: str, prediction: str) -> bool | None:
        """Whether two expressions are the same; None where that is not known in time."""
        with self._lock:
            return self._ask([gold, prediction])

    def close(self) -> None:
        """End the process, if this process started it."""
        if self._process and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
        self._process = None

    def _ask(self, pair: list[str]) -> bool | None:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.close()
            if not self._start():
                return None
        if not self._send(pair):
            self.close()
            return None
        answer = self._line(TIMEOUT_S)
        if answer is None:
            self.close()
            return None
        same: bool | None = json.loads(answer)
        return same

    def _start(self) -> bool:
        # -P: the folder of this file holds a numbers.py, which must not stand for the standard library's
        command = [sys.executable, "-P", str(Path(__file__).resolve())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._owner = os.getpid()
        if self._line(STARTING_TIMEOUT_S) is None:
            self.close()
            return False
        return True

    def _send(self, pair: list[str]) -> bool:
        assert self._process and self._process.stdin
        try:
            self._process.stdin.write(json.dumps(pair) + "\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def _line(self, timeout_s: float) -> str | None:
        assert self._process and self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return None
        return self._process.stdout.readline() or None


worker = Worker()
atexit.register(worker.close)


@lru_cache(maxsize=1024)
def same_expression(gold: str, prediction: str) -> bool | None:
    """Whether math-verify takes two LaTeX expressions for the same; None: too long, too steep, unread or too late."""
    if max(len(gold), len(prediction)) > LONGEST or TOWER.search(gold) or TOWER.search(prediction):
        return None
    return worker.compare(gold, prediction)


def serve() -> None:
    """The worker: a line [gold, prediction] in, a line true, false or null out."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from math_verify import parse, verify  # type: ignore[import-untyped]

    print("ready", flush=True)
    for line in sys.stdin:
        gold, prediction = json.loads(line)
        answer: bool | None = None
        try:
            parsed = [
                parse(f"${text}$", parsing_timeout=INNER_TIMEOUT_S, raise_on_error=True) for text in (gold, prediction)
            ]
            if all(parsed):
                answer = bool(verify(parsed[0], parsed[1], timeout_seconds=INNER_TIMEOUT_S, raise_on_error=True))
        except Exception:  # whatever a parser says of a hostile text, the answer is: not known
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
