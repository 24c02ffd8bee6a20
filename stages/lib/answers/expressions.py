r"""Expressions compared by math-verify, in a worker process that may be stopped: a hostile one costs a time-out.

    same_expression(r"2\sqrt{3}", r"\sqrt{12}")  → True;  None where it cannot say

math-verify's own time-outs need a process's main thread and do not end a long step inside one big power. So it runs in
a process with limited memory, started at the first expression, and killed and started anew when an answer is late.
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
TOWER = re.compile(r"\^[^,;=]{0,40}\^|\*\*[^,;=]{0,40}\*\*|\d{5,}\s*!|\^\s*\{?\s*\d{5,}|!\s*\)*\s*!")  # 9^{9^9}
CALLED = re.compile(r"\\sqrt\s?\(([^()]*)\)")  # \sqrt(2), which LaTeX reads as \sqrt{(}


class Worker:
    """One process with math-verify in it; answers one pair at a time. It ends with its pipe, so with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def compare(self, gold: str, prediction: str) -> bool | None:
        """Whether two expressions are the same; None where that is not known in time."""
        with self._lock:
            if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
                self.close()
                # -P: this file's folder must not stand for the standard library's modules
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
        """The worker's next line, or None, and an ended worker, where it is late or gone."""
        try:
            if self._process and self._process.stdin and self._process.stdout:
                self._process.stdin.write(question)
                self._process.stdin.flush()
                if select([self._process.stdout], [], [], timeout_s)[0] and (line := self._process.stdout.readline()):
                    return line
        except OSError:
            pass  # it ended: not known
        self.close()
        return None


worker = Worker()


@lru_cache(maxsize=1024)
def same_expression(gold: str, prediction: str) -> bool | None:
    """Whether math-verify takes two LaTeX expressions for the same; None: too long, too steep, unread or too late."""
    gold, prediction = (CALLED.sub(r"\\sqrt{\1}", text) for text in (gold, prediction))
    if max(len(gold), len(prediction)) > LONGEST or TOWER.search(f"{gold};{prediction}"):
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
        except Exception:  # whatever a parser says of a hostile text, the answer is: not known
            answer = None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
