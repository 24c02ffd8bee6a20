"""The reasoning parser of a model in each engine: what makes a server send the chain of thought apart from the answer.

    parser_of("Qwen/Qwen3-32B", "vllm")    → "qwen3"

The names are those of the engines' own documentation, read in November 2026:

    vLLM      https://docs.vllm.ai/en/v0.26.0/features/reasoning_outputs/, and for the families that the page does not
              list the registry in vllm/reasoning/__init__.py (DeepSeek-V4, gpt-oss, Kimi K2, MiniMax-M2 with a field
              of its own, Nemotron 3, Seed-OSS, Magistral)
    SGLang    https://docs.sglang.io/docs/advanced_features/separate_reasoning, and the registry in
              python/sglang/srt/parser/reasoning_parser.py

llama.cpp needs none: its server knows the form from the model's chat template (``--reasoning-format auto``).
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Models whose name matches, with their parsers; None: the engine has none, and the thought stays in the text."""

    name: str
    pattern: str
    vllm: str | None
    sglang: str | None
    reasons: bool = True


# the first that matches holds
FAMILIES = (
    Family("DeepSeek-R1", r"deepseek-r1", "deepseek_r1", "deepseek-r1"),
    Family("QwQ", r"qwq", "deepseek_r1", "deepseek-r1"),
    Family("DeepSeek-V4", r"deepseek-v4", "deepseek_v4", "deepseek-v4"),
    Family("DeepSeek-V3.1, V3.2", r"deepseek-v3\.[12]", "deepseek_v3", "deepseek-v3"),
    Family("Qwen3 Instruct, Coder", r"qwen3[\w.-]*(instruct|coder)", None, None, reasons=False),
    Family("Qwen3 Thinking", r"qwen3[\w.-]*thinking", "qwen3", "qwen3-thinking"),
    Family("Qwen3", r"qwen3", "qwen3", "qwen3"),
    Family("GLM-4.5 and later", r"glm-(4\.[5-9]|[5-9])", "glm45", "glm45"),
    Family("gpt-oss", r"gpt-oss", "openai_gptoss", "gpt-oss"),
    Family("Kimi K2 Thinking", r"kimi-k2-thinking", "kimi_k2", "kimi_k2"),
    Family("MiniMax-M2", r"minimax-m2", "minimax_m2", "minimax"),
    Family("Nemotron 3", r"nemotron-3", "nemotron_v3", "nemotron_3"),
    Family("Gemma 4", r"gemma-4", "gemma4", "gemma4"),
    Family("Magistral", r"magistral", "mistral", "mistral"),
    Family("Hunyuan A13B", r"hunyuan-a13b", "hunyuan_a13b", "hunyuan"),
    Family("Seed-OSS", r"seed-oss", "seed_oss", None),
    Family("Granite 3.2", r"granite-3\.2", "granite", None),
    Family("ERNIE-4.5 Thinking", r"ernie-4\.5[\w.-]*thinking", "ernie45", None),
)


def family_of(model: str) -> Family | None:
    """The family of a model's id or path; None if its name is none of these."""
    return next((each for each in FAMILIES if re.search(each.pattern, model.lower().replace("_", "-"))), None)


def parser_of(model: str, engine: str) -> str | None:
    """The parser of ``--reasoning-parser`` in vLLM (and vLLM-Ascend) or SGLang; None without one."""
    family = family_of(model)
    if family is None:
        return None
    return family.sglang if engine == "sglang" else family.vllm
