"""List a Python environment's packages and the cards that its torch sees; run inside that environment with ``-c``.

    python -c "$(cat stages/lib/doctor/probe.py)" torch torch-npu

Out, on the last line of stdout: ``{"versions": {"torch": "2.13.0"}, "torch_error": "", "npu_error": "", "cuda": 0,
"npu": 0}``. A separate process, because torch_npu without CANN breaks ``import torch``, and some drivers crash it.
It is written for Python 3.8: openMind's environment may be as old.
"""

import json
import sys
from importlib import import_module, metadata, util
from typing import Any


def inspect(names: "list[str]") -> "dict[str, Any]":
    """Versions without an import, then torch as a stage imports it, then the cards."""
    found: dict[str, Any] = {"versions": {}, "torch_error": "", "npu_error": "", "cuda": 0, "npu": 0}
    for name in names:
        try:
            found["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        import torch

        found["cuda"] = torch.cuda.device_count()
    except Exception as error:
        found["torch_error"] = f"{type(error).__name__}: {error}"
        return found
    try:
        if util.find_spec("torch_npu"):
            import_module("torch_npu")
            found["npu"] = torch.npu.device_count()
    except Exception as error:
        found["npu_error"] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    print("\n" + json.dumps(inspect(sys.argv[1:])))
