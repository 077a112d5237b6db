#!/usr/bin/env python3
"""Times the experts of one MoE layer on one device in PyTorch, beside which `c2r bench layer --device cuda` is put.

    bench/gpu_layer.py --device cuda|cpu --out FOLDER [--tokens N[,N...]] [--rounds N] [--tiny] [PROBLEM...]

Two ways take turns: transformers' experts (grouped_mm), and torch's grouped product with rows sorted by expert, as
MegaBlocks permutes them. Weights and rows are random, bf16, and every set of experts is equally likely; the two results
are compared before anything is timed. PROBLEM: as for c2r bench, default all. --tiny: two small shapes instead.
Writes layer-torch-PROBLEM-TOKENS.json with the seconds of each round.
"""

import argparse
import json
import pathlib
import time

import torch
import torch.nn.functional as F
import transformers
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeExperts

# As c2r/bench/layer_problem.cc: experts, top-k, hidden, intermediate.
SHAPES = {
    "qwen1.5-moe": (60, 4, 2048, 1408),
    "llama-moe": (8, 2, 4096, 1376),
    "olmoe": (64, 8, 2048, 1024),
    "mixtral-8x7b": (8, 2, 4096, 14336),
    "deepseek-v3": (256, 8, 7168, 2048),
}
TINY = {"tiny-8": (8, 2, 64, 32), "tiny-16": (16, 4, 64, 32)}


def transformers_experts(shape, device):
    num_experts, top_k, hidden, intermediate = shape
    config = transformers.Qwen2MoeConfig(
        num_experts=num_experts, num_experts_per_tok=top_k, hidden_size=hidden, moe_intermediate_size=intermediate
    )
    config._experts_implementation = "grouped_mm"
    with torch.device(device):
        experts = Qwen2MoeExperts(config).to(torch.bfloat16)
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return experts


def sorted_experts(experts, x, idx, weights):
    """Rows sorted by expert, two grouped products, and each token's weighted sum."""
    order = idx.flatten().argsort(stable=True)
    token = order // idx.shape[1]
    counts = torch.bincount(idx.flatten(), minlength=experts.num_experts)
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(x[token], experts.gate_up_proj.mT, offs=ends).chunk(2, dim=-1)
    out = F.grouped_mm(F.silu(gate) * up, experts.down_proj.mT, offs=ends)
    return torch.zeros_like(x).index_add_(0, token, out * weights.flatten()[order, None])


def time_rounds(ways, rounds, device):
    """Seconds of each way in each round, after two to warm up; the ways take turns."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = {name: [] for name in ways}
    for i in range(-2, rounds):
        for name, way in ways.items():
            synchronize()
            start = time.perf_counter()
            way()
            synchronize()
            if i >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@torch.no_grad()
def run_problem(name, shape, num_tokens, rounds, device):
    num_experts, top_k, hidden, intermediate = shape
    torch.manual_seed(1)
    experts = transformers_experts(shape, device)
    x = torch.randn(num_tokens, hidden, dtype=torch.bfloat16, device=device)
    idx = torch.rand(num_tokens, num_experts, device=device).topk(top_k).indices
    weights = torch.full(idx.shape, 1 / top_k, dtype=torch.bfloat16, device=device)
    ways = {
        "transformers grouped_mm": lambda: experts(x, idx, weights),
        "torch sorted grouped_mm": lambda: sorted_experts(experts, x, idx, weights),
    }
    first, second = (way().float() for way in ways.values())
    # Both round to bf16, 2^-8, in six places, and add up to top_k rounded terms in another order.
    limit = (6 + top_k) * 2**-8
    distance = ((first - second).norm() / first.norm()).item()
    if not distance <= limit:
        raise SystemExit(f"{name}: the two ways differ by {distance}, more than {limit}")
    return {
        "problem": name, "device": device, "num_experts": num_experts, "top_k": top_k, "hidden": hidden,
        "intermediate": intermediate, "tokens": num_tokens, "torch": torch.__version__,
        "transformers": transformers.__version__, "seconds": time_rounds(ways, rounds, device),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tokens", default="512,4096")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("problems", nargs="*", metavar="PROBLEM")
    args = parser.parse_args()
    shapes = TINY if args.tiny else SHAPES
    unknown = set(args.problems) - set(shapes)
    if unknown:
        parser.error(f"unknown problem {', '.join(sorted(unknown))}; there are {', '.join(shapes)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.problems or shapes:
        for num_tokens in map(int, args.tokens.split(",")):
            result = run_problem(name, shapes[name], num_tokens, args.rounds, args.device)
            path = args.out / f"layer-torch-{name}-{num_tokens}.json"
            path.write_text(json.dumps(result, indent=1) + "\n")
            medians = {way: sorted(s)[len(s) // 2] for way, s in result["seconds"].items()}
            print(name, num_tokens, {way: f"{1e6 * s:.0f} us" for way, s in medians.items()}, flush=True)


if __name__ == "__main__":
    main()
