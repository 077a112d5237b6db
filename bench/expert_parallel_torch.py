#!/usr/bin/env python3
"""c2r's exchange in transformers beside transformers' own all_to_all, over links of several speeds.

    bench/expert_parallel_torch.py [--work FOLDER] [--rounds N] [--tokens N] [--only TEXT] [--others FILE]
                                   [--at-a-time N] [--seconds S] [--report] [--prepare] [--local RANKS]
                                   [--device cpu|cuda] [--tiny]

Times a forward pass and a training step (forward and backward) of a model of one MoE layer on 4 hosts of
tools/cluster.sh, gloo over their links, every exchange with transformers' experts. Two layers, with the shapes of
Qwen1.5-MoE (hidden 2048, experts of 1408; 32 experts, top-4) and of LLaMA-MoE (4096, 1376; 8 experts, top-2), routed as
a layer of models/nano-qwen-moe and models/nano-llama-moe routes this repository's documents: plans and lists are made
of the even sequences, the odd ones are run. Attention has one small head, the vocabulary 64 entries, and nothing but
rows, their ids and weights travels: each rank holds its own experts and all other weights, without FSDP.

512 tokens a rank are 256 rows an expert (Qwen1.5-MoE). Training has more, but with 128 tokens reading the matrices takes
as long as their products, and again for each chunk; with 512 a variant's 15 rounds still take less than two minutes.

Links: "even" are set so that the baseline communicates for half of its time, by measuring it twice; the report says the
share in the rounds. "fast" and "slow" have 500 and 12,500 FLOP a byte, which stand for an A100 on NVLink and on a
200 Gb/s adapter. "nodes": 2 nodes of 2 ranks, of which a node's link has half the speed of one rank's; even.

Needs root, Open MPI and a Python with torch, transformers and c2r with its extension module. Every cell is a JSON file
in --work. --at-a-time variants run in turns with the baseline, and are written when they are measured; a later run
measures what is missing, over the same links. With --seconds nothing begins that would take longer than the time left.
--report only prints the tables of what is there. --others: a Python file whose IMPLEMENTATIONS (names and classes of
transformers' EPImplementation) are measured, too. --local: that many processes on this machine without shaped links, in
place of the cluster; --tiny: small shapes; --prepare: only make routings and models.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
RANKS, CLUSTER = 4, "c2rtorch"
FAST_MBIT = 100_000
NODE_SLOWER = 2.0  # than a rank's link

# hidden, intermediate, top_t of the lists, the trained model that routes, its layer
PROBLEMS = {
    "qwen1.5-moe": (2048, 1408, 8, "nano-qwen-moe", 2),
    "llama-moe": (4096, 1376, 2, "nano-llama-moe", 4),
}
TINY = {name: (64, 32, *rest) for name, (_, _, *rest) in PROBLEMS.items()}

# name, implementation, chunks (None: the best number in the warm-up), routing
BASELINE = ("all_to_all", "all_to_all", 1, "free contiguous")
ALL = ("all", "c2r", None, "free placed")
STEPS = [
    ("without chunks", "c2r", 1, "free placed"),
    ("without placement", "c2r", None, "free contiguous"),
    ("without deduplication", "c2r_per_expert", None, "free placed"),
    ("constraint alone", "c2r", None, "constrained contiguous"),
    ("constraint and placement", "c2r", None, "constrained placed"),
]
NODES = [
    ("once per rank", "c2r", None, "free contiguous"),
    ("once per node", "c2r_per_node", None, "free contiguous"),
    ("once per node, placed", "c2r_per_node", None, "free placed"),
]
MODES = ("train", "forward")
FLOP_PER_BYTE = {"even": None, "fast": 500, "slow": 12_500}


def stop(text):
    sys.exit(f"expert_parallel_torch: {text}")


def check_needs(args):
    """Everything that could fail after minutes fails here."""
    try:
        import c2r.torch
        import torch
        import transformers

        import c2r

        if not all((folder_of(args, name) / "routings.pt").exists() for name in PROBLEMS):
            c2r.plan  # noqa: B018 - needs the extension module
    except (ImportError, AttributeError) as error:
        stop(f"{error}; run it with a Python that has torch, transformers and c2r (pip install '.[hf]')")
    if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23):
        stop(f"transformers is {transformers.__version__}, expected 5.23 or newer")
    if args.device == "cuda" and not torch.cuda.is_available():
        stop("--device cuda, but PyTorch finds no GPU")
    if args.others and not args.others.is_file():
        stop(f"--others {args.others}: no such file")
    if args.rounds < 6:
        stop(f"--rounds {args.rounds}: an interval of 95 % needs at least 6")
    if args.local:
        return
    if os.geteuid() != 0:
        stop("needs root, for network namespaces; --local 2 measures without them")
    for program in ("ip", "tc", "mpirun"):
        if shutil.which(program) is None:
            stop(f"needs {program}: tools/setup.sh check installs it")


def texts(args):
    """Paragraphs of the documents, each a sequence."""
    parts = [part for path in sorted((ROOT / "docs").glob("*.md")) for part in path.read_text().split("\n\n")]
    return [part for part in parts if len(part) > 200][: 20 if args.tiny else 200]


def every_other(trace, layer, first):
    """int32 [num_tokens, top_k] of sequences first, first + 2, ..."""
    starts = [*trace.sequence_starts.tolist(), trace.num_tokens]
    idx = trace.topk_idx(layer)
    parts = [idx[starts[s] : starts[s + 1]] for s in range(first, len(starts) - 1, 2)]
    return np.ascontiguousarray(np.concatenate(parts))


def record(args, problem, folder):
    """Traces of the trained model's layers, without and with the constraint of lists of the even sequences."""
    import c2r.hf
    import c2r.hf.llama_moe
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import c2r

    path = ROOT / "models" / problem[3]
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    options = {"max_length": 128, "batch_size": 8}
    free = c2r.hf.profile(model, tokenizer, texts(args), folder / "free.safetensors", **options)
    even = c2r.Trace(free.header, [every_other(free, layer, 0) for layer in range(free.header.num_layers)])
    c2r.hf.constrain(model, c2r.collaborators(c2r.count_collaboration(even), top_t=problem[2]))
    return {
        "free": free,
        "constrained": c2r.hf.profile(model, tokenizer, texts(args), folder / "c.safetensors", **options),
    }


def make_routings(args, problem, folder):
    """torch.save()s, by name, ids [num_batches, tokens of all ranks, top_k], relabelled where they are placed."""
    import torch

    import c2r

    hidden, intermediate, _, _, layer = problem
    num_ranks, routings = args.local or RANKS, {}
    for name, trace in record(args, problem, folder).items():
        idx = torch.from_numpy(every_other(trace, layer, 1)).long()
        batches = min(8, len(idx) // (num_ranks * args.tokens))
        if batches < 1:
            stop(f"{len(idx)} recorded tokens are too few for --tokens {args.tokens} on {num_ranks} ranks")
        idx = idx[: batches * num_ranks * args.tokens].view(batches, num_ranks * args.tokens, -1)
        routings[f"{name} contiguous"] = idx
        for suffix, cluster in {"": one_node(num_ranks), **({} if args.local else {" nodes": two_nodes()})}.items():
            plan = c2r.plan(
                trace,
                cluster,
                fit="even",
                minimize="time",
                hidden=hidden,
                intermediate=intermediate,
                seconds=0.2 if args.tiny else 2,
            )
            order = torch.as_tensor(plan.slots()[layer]).flatten().long()
            routings[f"{name} placed{suffix}"] = order.argsort()[idx]
    torch.save(routings, folder / "routings.part")
    (folder / "routings.part").rename(folder / "routings.pt")


def one_node(num_ranks):
    """At about the even speed; a time's optimum depends on the ratio of the rates alone."""
    return {"num_nodes": 1, "ranks_per_node": num_ranks, "device_flop_per_s": 1e12,
            "intra_node": {"bandwidth_bytes_per_s": 1e12 / 4000, "latency_s": 0}}  # fmt: skip


def two_nodes():
    link = 1e12 / 4000
    return {"num_nodes": 2, "ranks_per_node": RANKS // 2, "device_flop_per_s": 1e12,
            "intra_node": {"bandwidth_bytes_per_s": link, "latency_s": 0},
            "inter_node": {"bandwidth_bytes_per_s": link / NODE_SLOWER, "latency_s": 0}}  # fmt: skip


def make_model(problem, path):
    """One layer with random experts; everything else is small."""
    import torch
    import transformers

    config = json.loads((ROOT / "models" / problem[3] / "config.json").read_text())
    torch.manual_seed(0)
    model = transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            hidden_size=problem[0], moe_intermediate_size=problem[1], num_experts=config["num_experts"],
            num_experts_per_tok=config.get("num_experts_per_tok", config.get("num_selects")), num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1, head_dim=64, vocab_size=64, intermediate_size=64,
            shared_expert_intermediate_size=64, dtype=torch.bfloat16,
        )
    ).to(torch.bfloat16)  # fmt: skip
    model.save_pretrained(path)


def folder_of(args, name):
    return args.work / f"{name}-{args.local or RANKS}x{args.tokens}{'-tiny' if args.tiny else ''}"


def prepare(args, name, problem):
    """The folder of a problem's routings and model. Each is made once; routings can be made on another machine."""
    folder = folder_of(args, name)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "routings.pt").exists():
        print(f"{name}: recording routing and planning", flush=True)
        make_routings(args, problem, folder)
    if not (folder / "model" / "ready").exists():
        print(f"{name}: making the model", flush=True)
        make_model(problem, folder / "model")
        (folder / "model" / "ready").touch()
    return folder


def named(variant, suffix=""):
    name, implementation, chunks, routing = variant
    return {"name": name, "implementation": implementation, "chunks": chunks,
            "routing": routing + (suffix if "placed" in routing else "")}  # fmt: skip


def even_flop_per_byte(problem, folder, tokens, mode):
    """FLOPs of the baseline's busiest rank over the bytes that its busiest rank sends, there and back.

    A training step has three times the FLOPs of a forward pass and sends twice its bytes.
    """
    import torch

    idx = torch.load(folder / "routings.pt")["free contiguous"][0]
    num_ranks = len(idx) // tokens
    num_experts = json.loads((folder / "model" / "config.json").read_text())["num_experts"]
    owner = idx // (num_experts // num_ranks)
    home = torch.arange(len(idx)).unsqueeze(1) // tokens
    links = torch.zeros(num_ranks, num_ranks, dtype=torch.long)
    links.index_put_((home.expand_as(owner), owner), torch.ones_like(owner), accumulate=True)
    away = links - links.diag().diag()
    busiest = int((away.sum(0) + away.sum(1)).max())
    forward = 6 * problem[0] * problem[1] * int(links.sum(0).max()) / max(busiest * 2 * problem[0], 1)
    return 1.5 * forward if mode == "train" else forward


def points_of(args, is_nodes):
    """FLOP per byte by name; None: where the baseline communicates for half of its time; 0: links without limit."""
    return {"nodes": None} if is_nodes else {f"local{args.local}": 0} if args.local else FLOP_PER_BYTE


def files_of(args, name):
    """Where the results of a problem are."""
    kinds = (False,) if args.local else (False, True)
    points = [point for is_nodes in kinds for point in points_of(args, is_nodes)]
    return [args.work / f"{name}_{mode}_{point}.json" for mode in MODES for point in points]


def cells_of(args, name, problem, folder, is_nodes):
    """What is to be measured and is not there yet, or in part."""
    others = [(name, name, 1, "free contiguous") for name in args.other_names]
    cells = []
    for mode in MODES:
        for point, ratio in points_of(args, is_nodes).items():
            variants = [BASELINE, *NODES] if is_nodes else [BASELINE, ALL]
            variants += [*STEPS, *others] if not ratio and not is_nodes else []
            result = args.work / f"{name}_{mode}_{point}.json"
            if args.only not in result.name or is_complete(result, variants):
                continue
            cells.append({
                "mode": mode, "point": point, "flop_per_byte": ratio, "rounds": args.rounds, "result": str(result),
                "even_flop_per_byte": even_flop_per_byte(problem, folder, args.tokens, mode),
                "variants": [named(variant, " nodes" if is_nodes else "") for variant in variants],
            })  # fmt: skip
    return cells


def is_complete(path, variants):
    """Whether a cell's file has what was measured of all of these variants."""
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    measured = {variant["name"] for group in result["groups"] for variant in group["variants"]}
    return {name for name, *_ in variants} <= measured


def launch(args, job, num_ranks, is_nodes):
    """Runs the ranks, in the cluster or here, until all cells are measured."""
    path = args.work / "job.json"
    store = args.work / "store"
    store.unlink(missing_ok=True)
    path.write_text(json.dumps({**job, "store": str(store)}))
    command = [sys.executable, str(ROOT / "bench" / "expert_parallel_torch_rank.py"), str(path)]
    if args.local:
        ranks = [
            subprocess.Popen(command, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(num_ranks)})
            for rank in range(num_ranks)
        ]
        codes = [rank.wait() for rank in ranks]
        if any(codes):
            stop("a rank failed; what it said is above")
        return
    env = {**os.environ, "C2R_CLUSTER": CLUSTER}
    script = str(ROOT / "tools" / "cluster.sh")
    nodes = f"2x{RANKS // 2}" if is_nodes else f"1x{RANKS}"
    subprocess.run([script, "down"], env=env, check=True)
    speeds = ["--link", str(FAST_MBIT), "--node", str(FAST_MBIT)]
    subprocess.run([script, "up", nodes, *speeds, "--seconds", "3600"], env=env, check=True, stdout=subprocess.DEVNULL)
    try:
        if subprocess.run([script, "run", *command], env=env, check=False).returncode:
            stop("a rank failed; what it said is above, and what was measured before is kept")
    finally:
        subprocess.run([script, "down"], env=env, check=True)


def measure(args):
    for name, problem in (TINY if args.tiny else PROBLEMS).items():
        if not any(args.only in path.name for path in files_of(args, name)):
            continue
        folder = prepare(args, name, problem)
        if args.prepare:
            continue
        for is_nodes in (False,) if args.local else (False, True):
            cells = cells_of(args, name, problem, folder, is_nodes)
            if not cells:
                continue
            print(f"{name}{', nodes' if is_nodes else ''}: {len(cells)} cells", flush=True)
            job = {
                "problem": name, "model": str(folder / "model"), "routings": str(folder / "routings.pt"),
                "tokens": args.tokens, "threads": 1, "device": args.device, "cells": cells, "chunks": [1, 2, 4],
                "cluster": None if args.local else CLUSTER, "fast_mbit": FAST_MBIT, "others": args.others
                and str(args.others.resolve()), "node_slower": NODE_SLOWER if is_nodes else 0,
                "ranks_per_node": RANKS // 2 if is_nodes else None, "at_a_time": args.at_a_time,
                "end": args.end,
            }  # fmt: skip
            launch(args, job, args.local or RANKS, is_nodes)


def interval(ratios):
    """Median and its interval of 95 % or more, by order statistics: it assumes nothing but independent rounds.

    The k-th smallest of n lies above the median of the distribution with the probability of fewer than k heads in n
    throws.
    """
    ordered, n = sorted(ratios), len(ratios)
    k = max(k for k in range(1, n) if k == 1 or sum(math.comb(n, heads) for heads in range(k)) <= 0.025 * 2**n)
    return statistics.median(ordered), ordered[k - 1], ordered[n - k]


def row_of(group, variant):
    """Of a variant: time over the baseline's, its name, bytes of its busiest rank over the baseline's."""
    baseline, name = group["variants"][0]["name"], variant["name"]
    pairs = zip(group["seconds"][name], group["seconds"][baseline])
    median, low, high = interval([ours / theirs for ours, theirs in pairs])
    sent, base_sent = group["bytes_sent"][name], group["bytes_sent"][baseline]
    chunks = f", {variant['chunks']} chunks" if variant["chunks"] > 1 else ""
    share = f"{max(sent) / max(base_sent):.2f}" if sent else ""
    return [f"{median:.2f} ({low:.2f} to {high:.2f})", f"{name}{chunks}", share]


def lead_of(result):
    """Of a cell: layer, mode, links, the baseline's time, its share of communication, what is left without bytes."""
    cell, groups = result["cell"], result["groups"]
    baseline = groups[0]["variants"][0]["name"]
    ours = groups[0]["variants"][1]["name"]
    seconds = statistics.median(s for group in groups for s in group["seconds"][baseline])
    free = statistics.median(s for group in groups for s in group["free_s"][baseline])
    limit = statistics.median(groups[0]["free_s"][ours]) / statistics.median(groups[0]["seconds"][baseline])
    links = f"{cell['point']}, {result['flop_per_byte']:.0f} FLOP/B, {result['mbit']} Mbit/s"
    times = [f"{1e3 * seconds:.0f}", f"{100 * (1 - free / seconds):.0f} %", f"{limit:.2f}"]
    return [f"{result['problem']}, {result['tokens']} tokens", cell["mode"], links, *times]


def report(args):
    """Markdown: a row for each variant of each cell, the ratios of paired rounds to the baseline's, and what was sent."""
    print("| layer | | links | baseline ms | it communicates | ours without bytes | of its time: | | bytes |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(path for name in PROBLEMS for path in args.work.glob(f"{name}_*_*.json")):
        result = json.loads(path.read_text())
        if not result["groups"]:
            continue
        lead = lead_of(result)
        for group in result["groups"]:
            for variant in group["variants"][1:]:
                print("| " + " | ".join(lead + row_of(group, variant)) + " |")
                lead = [""] * len(lead)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "bench-torch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=512, help="of each rank (%(default)s)")
    parser.add_argument("--only", default="", help="only cells whose file's name has this in it")
    parser.add_argument("--others", type=pathlib.Path)
    parser.add_argument("--at-a-time", type=int, default=2, metavar="N", help="variants in turns with the baseline")
    parser.add_argument("--seconds", type=float, help="begin nothing that would end later")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--local", type=int, default=0, metavar="RANKS")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.end = args.seconds and time.time() + args.seconds
    if not args.report:
        check_needs(args)
        sys.path.insert(0, str(ROOT / "bench"))
        from expert_parallel_torch_rank import load_others

        args.other_names = list(load_others(args.others))
        args.work.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        measure(args)
        print(f"measured in {time.monotonic() - start:.0f} s", flush=True)
    report(args)


if __name__ == "__main__":
    main()
