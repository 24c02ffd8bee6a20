"""Tokenize samples by a trainer's own code, as it would train on them; run by the python of its environment.

In, the argument:  a file with ``encoder(keys)``, which returns a function for a sample
In, on stdin, a JSON line each:  the keys of the trainer's YAML, such as {"template": "qwen", …}
                                 then samples: [{…}, …]
Out, on stdout:                  for each line of samples: [{"ids": [9, 1], "labels": [-100, 1], "whole": true}, …]

``whole``: the trainer keeps it and cuts nothing off. Its own messages go to stderr. It imports nothing of this project,
whose folder is not a package there.
"""

import json
import os
import runpy
import sys


def main() -> None:
    """Answer each line of samples."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the trainer prints
    encoded = runpy.run_path(sys.argv[1])["encoder"](json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        answers.write(json.dumps([encoded(sample) for sample in json.loads(line)]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
