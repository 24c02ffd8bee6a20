"""What a Python environment holds and which cards its torch sees; run inside that environment, as text for ``-c``.

    python -c "$(cat stages/lib/doctor/probe.py)" torch torch-npu

Out, on the last line of stdout: ``{"versions": {"torch": "2.13.0"}, "torch_error": "", "npu_error": "", "cuda": 0,
"npu": 0}``. A process of its own, because torch_npu without CANN breaks ``import torch``, and some drivers the process.
It is written for Python 3.8: openMind's environment may be as old.
"""

import json
import sys
from importlib import import_module, metadata, util
from typing import Any


def look(names: "list[str]") -> "dict[str, Any]":
    """Versions without an import, then torch as a stage imports it, then the cards."""
    said: dict[str, Any] = {"versions": {}, "torch_error": "", "npu_error": "", "cuda": 0, "npu": 0}
    for name in names:
        try:
            said["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        import torch

        said["cuda"] = torch.cuda.device_count()
    except Exception as error:
        said["torch_error"] = f"{type(error).__name__}: {error}"
        return said
    try:
        if util.find_spec("torch_npu"):
            import_module("torch_npu")
            said["npu"] = torch.npu.device_count()
    except Exception as error:
        said["npu_error"] = f"{type(error).__name__}: {error}"
    return said


if __name__ == "__main__":
    print("\n" + json.dumps(look(sys.argv[1:])))
