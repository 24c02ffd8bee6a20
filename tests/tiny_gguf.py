"""The tiny student for llama.cpp, an implementation of its own: its weights in a GGUF file, and its server.

python -m tests.tiny_gguf FILE      # prints its address, and ends when its stdin is closed
"""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LAYERS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(student: Path, path: Path) -> None:
    """A Qwen2 with its weights in F32, its tokenizer and its chat template, as llama.cpp's own converter writes it."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    content = json.loads((student / "tokenizer.json").read_bytes())["model"]
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = tokenizer.added_tokens_decoder
    kinds = [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(len(names))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in content["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weights in model.state_dict().items():
        if found := _name(name):
            writer.add_tensor(found, weights.to(torch.float32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str | None:
    kind = name.rpartition(".")[2]
    if name.startswith("model.layers."):
        _, _, number, part = name.removesuffix(f".{kind}").split(".", 3)
        return f"blk.{number}.{LAYERS[part]}.{kind}"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(name)


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """The address of llama.cpp's server with that file."""
    command = [sys.executable, "-m", "tests.tiny_gguf", str(path)]
    log = path.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        assert server.stdin and server.stdout
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), log.read_text()
        yield address
        server.stdin.close()


def asked(address: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The server's JSON."""
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def likeliest(address: str, ids: list[int], count: int) -> dict[int, float]:
    """The likeliest next tokens after these, and the logarithms of their probabilities.

    The token that is sampled is always the same: after half a character or an end, the server gives no probabilities.
    They are those before sampling, which the bias does not change.
    """
    body = {"prompt": ids, "n_predict": 1, "n_probs": count, "temperature": -1.0, "logit_bias": [["a", 1000.0]]}
    found = asked(address, "/completion", body)["completion_probabilities"][0]["top_logprobs"]
    return {each["id"]: each["logprob"] for each in found}


def main(path: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {"tiny"}
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_ctx = 1024
    params.n_parallel = 1
    params.port = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
