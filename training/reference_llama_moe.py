"""LLaMA-MoE written out as its definition says, from a model folder: what faster code is compared with.

Shares no code with training/model.py. float32 or float64, one sequence, one token and one expert at a time.

  python3 -m training.reference_llama_moe MODEL_FOLDER 1 2 3     the logits after these tokens, one line each
"""

import json
import pathlib
import sys

import safetensors.torch
import torch
from torch import Tensor


class ReferenceLlamaMoe:
    """The model of a folder with the published tensor names."""

    def __init__(self, folder: pathlib.Path, dtype: torch.dtype = torch.float32) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        self.weights = {name: tensor.to(dtype) for name, tensor in tensors.items()}

    def logits(self, tokens: list[int]) -> Tensor:
        """[num_tokens, vocab_size]."""
        x = self.weights["model.embed_tokens.weight"][torch.tensor(tokens)]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            x = x + self.attention(self.norm(x, f"{name}.input_layernorm"), f"{name}.self_attn")
            rows = self.norm(x, f"{name}.post_attention_layernorm")
            x = x + torch.stack([self.moe(row, f"{name}.mlp") for row in rows])
        output = "lm_head.weight" if "lm_head.weight" in self.weights else "model.embed_tokens.weight"
        return self.norm(x, "model.norm") @ self.weights[output].T

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean_square = (x * x).mean(-1, keepdim=True)
        return x / (mean_square + self.config["rms_norm_eps"]).sqrt() * self.weights[f"{name}.weight"]

    def rotate(self, head: Tensor, position: int) -> Tensor:
        """head [head_size]: coordinate i and i + head_size / 2 turn by position * theta^(-2 i / head_size)."""
        half = len(head) // 2
        turned = head.clone()
        for i in range(half):
            angle = torch.tensor(
                position * self.config.get("rope_theta", 10000.0) ** (-2 * i / len(head)), dtype=head.dtype
            )
            turned[i] = head[i] * angle.cos() - head[i + half] * angle.sin()
            turned[i + half] = head[i + half] * angle.cos() + head[i] * angle.sin()
        return turned

    def attention(self, x: Tensor, name: str) -> Tensor:
        """x [num_tokens, hidden]. A query head looks at its own key head, or at that of its group."""
        num_heads, num_kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        q, k, v = (x @ self.weights[f"{name}.{part}_proj.weight"].T for part in "qkv")
        q, k, v = (
            q.unflatten(1, (num_heads, -1)),
            k.unflatten(1, (num_kv_heads, -1)),
            v.unflatten(1, (num_kv_heads, -1)),
        )
        out = torch.zeros_like(q)
        for h in range(num_heads):
            kv = h * num_kv_heads // num_heads
            keys = torch.stack([self.rotate(k[t, kv], t) for t in range(len(x))])
            for t in range(len(x)):
                scores = keys[: t + 1] @ self.rotate(q[t, h], t) / q.shape[2] ** 0.5
                out[t, h] = scores.softmax(0) @ v[: t + 1, kv]
        return out.flatten(1) @ self.weights[f"{name}.o_proj.weight"].T

    def moe(self, row: Tensor, name: str) -> Tensor:
        """row [hidden]: the best experts by logit, weighted by a softmax over their logits alone."""
        gate = self.weights
        gate_logits = (
            gate[f"{name}.gate.gate_network.2.weight"] @ (gate[f"{name}.gate.gate_network.0.weight"] @ row).tanh()
        )
        best = sorted(range(len(gate_logits)), key=lambda e: (-gate_logits[e].item(), e))[: self.config["num_selects"]]
        out = torch.zeros_like(row)
        for e, score in zip(best, gate_logits[best].softmax(0)):
            part = {p: self.weights[f"{name}.calculator.experts.weight_{p}.{e}"] for p in ("gate", "up", "down")}
            hidden = torch.nn.functional.silu(part["gate"] @ row) * (part["up"] @ row)
            out = out + score * self.config["score_scale_factor"] * (part["down"] @ hidden)
        return out


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python3 -m training.reference_llama_moe MODEL_FOLDER TOKEN...")
    for line in ReferenceLlamaMoe(pathlib.Path(sys.argv[1])).logits([int(token) for token in sys.argv[2:]]):
        print(*(f"{value:.6g}" for value in line.tolist()))
