#!/usr/bin/env python3
"""Makes tests/golden/models: a tiny random checkpoint of each family, and what it must compute.

The expected logits, greedy tokens and routing come from Hugging Face transformers in f32; those of
LLaMA-MoE, which transformers does not have, from its published rules written here with torch alone.
Collaboration-constrained routing is the official rule, written here for both of its families.
Nothing of c2r is used. To make them again, with the versions they were made with:

  python3 -m venv /somewhere/else
  /somewhere/else/bin/pip install torch==2.4.0 transformers==4.57.6 numpy
  /somewhere/else/bin/python tools/make_tiny_models.py
"""
import json
import math
import pathlib
import shutil

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers.models.qwen2_moe import modeling_qwen2_moe

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "models"
VOCAB, PROMPT, NEW = 64, 12, 64
COMMON = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 10000.0,
          "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": None,
          "eos_token_id": None, "pad_token_id": None}

torch.manual_seed(0)
torch.set_num_threads(1)


def randomize(parameters, dtype):
    """Weights that make decisive choices, rounded to what the checkpoint stores."""
    for name, p in parameters:
        if p.dim() == 1:
            value = torch.randn_like(p) * 0.3 + (0.0 if name.endswith("bias") else 1.0)
        elif "embed" in name:
            value = torch.randn_like(p)
        else:
            gain = 3.0 if ".gate." in name else 1.5
            value = torch.randn_like(p) * gain / math.sqrt(p.shape[1])
        p.data.copy_(value.to(dtype).float())


def c2r_choice(scores, top_k, top_t, lists):
    """The best expert freely, the others among the first top_t collaborators of it."""
    best = scores.argmax(-1)
    chosen = []
    for token in range(scores.shape[0]):
        allowed = torch.tensor(lists[int(best[token])][:top_t])
        others = allowed[scores[token, allowed].topk(top_k - 1).indices]
        chosen.append(torch.cat([best[token:token + 1], others]))
    return torch.stack(chosen)


def random_lists(num_layers, num_experts):
    """As the official configs have them: all experts, the expert itself last."""
    lists = []
    for _ in range(num_layers):
        rows = []
        for e in range(num_experts):
            others = [o for o in torch.randperm(num_experts).tolist() if o != e]
            rows.append(others + [e])
        lists.append(rows)
    return lists


class Recorder:
    """The experts of every token, by MoE layer; tokens are appended call by call."""

    def __init__(self):
        self.layers = {}

    def add(self, layer, chosen):
        self.layers.setdefault(layer, []).extend(chosen.tolist())

    def tokens(self):
        return [list(self.layers[layer]) for layer in sorted(self.layers)]


def greedy(forward, tokens):
    """NEW tokens, and by how much the closest decision was won."""
    everything, margin = list(tokens), math.inf
    for _ in range(NEW):
        last = forward(everything)[-1]
        best = last.topk(2).values
        margin = min(margin, float(best[0] - best[1]))
        everything.append(int(last.argmax()))
    return everything, margin


def expected(forward, recorder):
    """Runs forward(tokens) -> logits [n, vocab] on a prompt and then greedily, without a cache."""
    for seed in range(100):  # the first prompt where no decision hangs on a rounding
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, VOCAB, (PROMPT,), generator=generator).tolist()
        logits = forward(tokens)
        everything, margin = greedy(forward, tokens)
        if margin > 1e-3 * float(logits.abs().max()):
            break
    else:
        raise RuntimeError("no prompt has clear decisions")
    recorder.layers.clear()
    forward(everything)
    return {"prompt": tokens, "logits": [[round(float(v), 6) for v in row] for row in logits],
            "greedy": everything[PROMPT:],
            "topk_idx": recorder.tokens()}  # [num_moe_layers][PROMPT + NEW][top_k], best first


# ---- families of transformers: gates are recorded by replacing torch.topk's results.


def record_gates(model, recorder):
    layer = 0
    for name, module in model.named_modules():
        if not name.endswith((".mlp.gate", ".block_sparse_moe.gate")):
            continue
        top_k = model.config.num_experts_per_tok

        def hook(_, __, logits, layer=layer):
            recorder.add(layer, logits.topk(top_k, -1).indices)

        module.register_forward_hook(hook)
        layer += 1


def qwen2_c2r(model, top_t, lists, recorder):
    """Replaces the choice in each block by the official rule for Qwen-MoE."""
    def make(layer):
        def forward(self, hidden_states):
            shape = hidden_states.shape
            x = hidden_states.view(-1, shape[-1])
            p = F.softmax(self.gate(x), dim=1, dtype=torch.float)
            chosen = c2r_choice(p, self.top_k, top_t, lists[layer])
            recorder.add(layer, chosen)
            weights = p.gather(1, chosen)
            if self.norm_topk_prob:
                weights = weights / weights.sum(-1, keepdim=True)
            out = torch.stack([sum(w * self.experts[int(e)](token[None])[0] for w, e in zip(ws, es))
                               for token, ws, es in zip(x, weights, chosen)])
            out = out + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
            return out.view(shape), None
        return forward

    blocks = [m for m in model.modules()
              if isinstance(m, modeling_qwen2_moe.Qwen2MoeSparseMoeBlock)]
    for layer, block in enumerate(blocks):
        block.forward = make(layer).__get__(block)


def run_transformers(model, recorder):
    def forward(tokens):
        with torch.no_grad():
            return model(torch.tensor([tokens]), use_cache=False).logits[0]
    return expected(forward, recorder)


# ---- LLaMA-MoE: its published rules.


def llama_moe_parameters(config):
    h, e = config["hidden_size"], config["num_experts"]
    p = {"model.embed_tokens.weight": (VOCAB, h), "lm_head.weight": (VOCAB, h),
         "model.norm.weight": (h,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        kv = h // config["num_attention_heads"] * config["num_key_value_heads"]
        p |= {at + "input_layernorm.weight": (h,), at + "post_attention_layernorm.weight": (h,),
              at + "self_attn.q_proj.weight": (h, h), at + "self_attn.k_proj.weight": (kv, h),
              at + "self_attn.v_proj.weight": (kv, h), at + "self_attn.o_proj.weight": (h, h),
              at + "mlp.gate.gate_network.0.weight": (e, h),
              at + "mlp.gate.gate_network.2.weight": (e, e),
              at + "mlp.gate.weight_noise.weight": (e, h)}
        for expert, size in enumerate(config["size_experts"][layer]):
            p |= {at + f"mlp.calculator.experts.weight_gate.{expert}": (size, h),
                  at + f"mlp.calculator.experts.weight_up.{expert}": (size, h),
                  at + f"mlp.calculator.experts.weight_down.{expert}": (h, size)}
    return {name: torch.empty(shape) for name, shape in p.items()}


def llama_moe_forward(p, config, recorder, top_t=None, lists=None):
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config["hidden_size"] // heads

    def norm(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]) * weight

    def rotate(x):  # [n, heads, head_dim]
        inverse = 1.0 / 10000.0 ** (torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.outer(torch.arange(x.shape[0]).float(), inverse).repeat(1, 2)[:, None]
        turned = torch.cat([-x[..., head_dim // 2:], x[..., :head_dim // 2]], -1)
        return x * angles.cos() + turned * angles.sin()

    def attention(x, at):
        n = x.shape[0]
        q = rotate((x @ p[at + "q_proj.weight"].T).view(n, heads, head_dim))
        k = rotate((x @ p[at + "k_proj.weight"].T).view(n, kv_heads, head_dim))
        v = (x @ p[at + "v_proj.weight"].T).view(n, kv_heads, head_dim)
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(head_dim)
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", scores, v).reshape(n, -1) @ p[at + "o_proj.weight"].T

    def moe(x, at, layer):
        gate = torch.tanh(x @ p[at + "gate.gate_network.0.weight"].T)
        logits = gate @ p[at + "gate.gate_network.2.weight"].T
        k = config["num_selects"]
        chosen = (logits.topk(k, -1).indices if top_t is None
                  else c2r_choice(logits, k, top_t, lists[layer]))
        recorder.add(layer, chosen)
        scores = logits.gather(1, chosen).softmax(-1) * config["score_scale_factor"][layer]
        out = torch.zeros_like(x)
        for token in range(x.shape[0]):
            for score, e in zip(scores[token], chosen[token].tolist()):
                gate, up, down = (p[at + f"calculator.experts.weight_{part}.{e}"]
                                  for part in ("gate", "up", "down"))
                out[token] += score * (down @ (F.silu(gate @ x[token]) * (up @ x[token])))
        return out

    def forward(tokens):
        x = p["model.embed_tokens.weight"][torch.tensor(tokens)]
        for layer in range(config["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            x = x + attention(norm(x, p[at + "input_layernorm.weight"]), at + "self_attn.")
            x = x + moe(norm(x, p[at + "post_attention_layernorm.weight"]), at + "mlp.", layer)
        return norm(x, p["model.norm.weight"]) @ p["lm_head.weight"].T

    return forward


# ---- the models.


def write(name, config, tensors, num_shards, results):
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "expected.json").write_text(json.dumps(results, separators=(",", ":")) + "\n")
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names, where = sorted(tensors), {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        part = names[shard::num_shards]
        save_file({n: tensors[n] for n in part}, folder / file)
        where |= {n: file for n in part}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where}, indent=1) + "\n")


def make_transformers(name, config_class, model_class, dtype, num_shards=1, c2r=None, **options):
    config = config_class(**{**COMMON, **options}, attn_implementation="eager")
    model = model_class(config).float().eval()
    randomize(model.named_parameters(), dtype)
    plain = Recorder()
    record_gates(model, plain)
    results = {"plain": run_transformers(model, plain)}
    if c2r is not None:
        lists = random_lists(len(plain.tokens()), options["num_experts"])
        recorder = Recorder()
        qwen2_c2r(model, c2r, lists, recorder)
        results["c2r"] = {"top_t": c2r, "collaborative_list": lists,
                          **run_transformers(model, recorder)}
    written = {k: v for k, v in {**COMMON, **options}.items() if v is not None}
    written = {"architectures": [model_class.__name__], "model_type": config.model_type, **written}
    tensors = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    write(name, written, tensors, num_shards, results)


def make_llama_moe():
    config = {"architectures": ["LlamaMoEForCausalLM"], "model_type": "llama_moe",
              "calculator_type": "UniversalCalculator", "gate_network": "mlp",
              "gate_type": "TopKBalancedNoisyGate", "gate_use_softmax": True, "gate_add_noise": True,
              "multiply_gate_scores": True, "hidden_act": "silu", "num_experts": 8,
              "num_selects": 2, "intermediate_size": 128, "score_scale_factor": [4.0, 2.5],
              "size_experts": [[16] * 8, [12, 20] * 4],
              **{k: v for k, v in COMMON.items() if v is not None and k != "rope_theta"}}
    parameters = llama_moe_parameters(config)
    randomize(parameters.items(), torch.bfloat16)
    plain, constrained = Recorder(), Recorder()
    lists = random_lists(2, 8)
    results = {"plain": expected(llama_moe_forward(parameters, config, plain), plain),
               "c2r": {"top_t": 3, "collaborative_list": lists, **expected(
                   llama_moe_forward(parameters, config, constrained, 3, lists), constrained)}}
    write("llama_moe", config, {k: v.bfloat16() for k, v in parameters.items()}, 1, results)


make_llama_moe()
make_transformers("qwen2_moe", transformers.Qwen2MoeConfig, transformers.Qwen2MoeForCausalLM,
                  torch.bfloat16, num_shards=2, c2r=4, num_hidden_layers=3, mlp_only_layers=[0],
                  decoder_sparse_step=1, num_experts=10, num_experts_per_tok=4,
                  moe_intermediate_size=12, intermediate_size=24,
                  shared_expert_intermediate_size=20, norm_topk_prob=False, hidden_act="silu",
                  use_sliding_window=False)
make_transformers("qwen3_moe", transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM,
                  torch.bfloat16, head_dim=12, num_experts=8, num_experts_per_tok=3,
                  moe_intermediate_size=16, intermediate_size=24, decoder_sparse_step=1,
                  mlp_only_layers=[], norm_topk_prob=True, hidden_act="silu")
make_transformers("olmoe", transformers.OlmoeConfig, transformers.OlmoeForCausalLM, torch.float32,
                  num_key_value_heads=4, num_experts=6, num_experts_per_tok=2, clip_qkv=0.8,
                  intermediate_size=10, norm_topk_prob=False, hidden_act="silu")
make_transformers("mixtral", transformers.MixtralConfig, transformers.MixtralForCausalLM,
                  torch.float16, num_key_value_heads=1, num_local_experts=4,
                  num_experts_per_tok=2, intermediate_size=20, hidden_act="silu")
