#!/usr/bin/env python3
"""Cost, imbalance and CPU time of `c2r plan` over numbers of tokens and efforts, on clustered synthetic traces.

    pip install numpy
    bench/search_sweep.py build/release/c2r --tokens 1000 4000 16000 64000 --efforts 1 2 4 8
    bench/search_sweep.py build/release/c2r --experts 256 --top-k 8 --cluster 8x8 --redundant-slots 1
    g++ -O2 -std=c++20 bench/plain_annealer.cc -o plain_annealer
    bench/search_sweep.py build/release/c2r --cluster 2x4 --annealer ./plain_annealer --visits 500

A row is a trace of bench/clustered_trace.py, a column an effort: the cost of a token that `c2r plan` minimizes,
the worst imbalance of a layer and the CPU seconds of the whole command. The cost is copies; on several nodes of
several ranks it is copies x rank_copy_cost + node copies x node_copy_cost, of all nodes that serve a token, that
of its home included. A * marks an imbalance above the bound: fewer copies are then no progress.

More effort must not be worse: first by how far layers exceed the bound, then by the cost. Twice the tokens or the
effort must take at most 2.5 times as long, beyond the half second that reading and predicting take. Exits with 1
otherwise. With --annealer, a last column has what bench/plain_annealer.cc finds in the same trace, with loads in
the order of its token sets and without homes; it is not judged, and "none" if it met no placement within the bound.
"""
import argparse
import collections
import json
import math
import pathlib
import resource
import subprocess
import sys
import tempfile

START_S = 0.5  # of reading, predicting and the process itself, which no doubling is of
MOST_GROWTH = 2.5
SAME = 1e-9  # relative: as rounding may differ

# Of one plan. `excess` is by how much layers exceed the bound, summed; `cost` is the mean over layers.
Result = collections.namedtuple("Result", "excess cost worst_imbalance seconds")


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_trace(options, tokens, folder):
    """(the trace, its choices [num_tokens, num_layers, top_k])"""
    import numpy as np  # here, as tests that make no trace need none

    drawn, trace = folder / "drawn", folder / f"{tokens}.safetensors"
    here = pathlib.Path(__file__).resolve().parent
    subprocess.run([sys.executable, here / "clustered_trace.py", "--experts", str(options.experts), "--top-k",
                    str(options.top_k), "--tokens", str(tokens), "--layers", str(options.layers), "--seed",
                    str(options.seed), "-o", drawn], check=True)
    subprocess.run([options.c2r, "import", "--from", "npy", drawn / "expert_ids.npy", "--sequences",
                    drawn / "sequences.csv", "--num-experts", str(options.experts), "-o", trace],
                   check=True, stdout=subprocess.DEVNULL)
    return trace, np.load(drawn / "expert_ids.npy")


def sets_of_layers(ids):
    """[num_layers] of {the experts that a token chose, ascending: the number of such tokens}, in order of tokens."""
    return [collections.Counter(tuple(sorted(chosen)) for chosen in ids[:, layer].tolist())
            for layer in range(ids.shape[1])]


def smallest_cover(hosts_of_token, ranks_per_node):
    """(ranks, nodes) that serve a token: the fewest ranks that host all its experts, then the fewest nodes.

    hosts_of_token has a set of ranks for each expert. Whatever ranks serve the token, one of them hosts the next
    expert, so adding each host in turn to the covers of the experts before finds all smallest covers.
    """
    covers = {frozenset()}
    for hosts in sorted(hosts_of_token, key=len):
        covers = {longer for cover in covers
                  for longer in ([cover] if cover & hosts else [cover | {rank} for rank in hosts])}
    return min((len(cover), len({rank // ranks_per_node for rank in cover})) for cover in covers)


def count_copies(slots, sets, ranks_per_node):
    """(copies, node copies) a token under slots [num_ranks][slots_per_rank] of experts"""
    hosts = collections.defaultdict(set)
    for rank, experts in enumerate(slots):
        for expert in experts:
            hosts[expert].add(rank)
    copies = node_copies = 0
    for experts, tokens in sets.items():
        ranks, nodes = smallest_cover([hosts[expert] for expert in experts], ranks_per_node)
        copies += tokens * ranks
        node_copies += tokens * nodes
    return copies / sets.total(), node_copies / sets.total()


def judge(plan, sets, seconds):
    """What `plan`, the JSON of a plan file, costs on the tokens that it was fitted to."""
    prediction, goal = plan["predictions"][-1], plan["provenance"]["options"]
    # The file has copies between nodes: without those to the home's node, and fewer where a replica is on it.
    copies = prediction["copies_per_token"]
    costs = [goal["rank_copy_cost"] * x for x in copies]
    if goal["node_copy_cost"] > 0:
        for layer, of_layer in enumerate(sets):
            counted, nodes = count_copies(plan["layers"][layer]["slots"], of_layer, plan["cluster"]["ranks_per_node"])
            if not math.isclose(counted, copies[layer], rel_tol=SAME):
                raise ValueError(f"layer {layer}: the plan has {copies[layer]} copies a token, but counting all "
                                 f"covers gives {counted}")
            costs[layer] += goal["node_copy_cost"] * nodes
    bound = goal["max_imbalance"]
    excess = sum(x - bound for x in prediction["imbalance"] if x > bound * (1 + SAME))
    return Result(excess, sum(costs) / len(costs), max(prediction["imbalance"]), seconds)


def run_plan(options, trace, sets, effort):
    """(the plan file's JSON, its Result)"""
    before = cpu_seconds()
    path = trace.with_suffix(".json")
    subprocess.run([options.c2r, "plan", trace, "--cluster", options.cluster, "--redundant-slots",
                    str(options.redundant_slots), "--max-imbalance", str(options.max_imbalance), "--effort",
                    str(effort), "-o", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    spent = cpu_seconds() - before
    plan = json.loads(path.read_text())
    return plan, judge(plan, sets, spent)


def text_of_sets(num_experts, sets):
    """The input of bench/plain_annealer.cc."""
    lines = [f"{num_experts} {len(sets)}"]
    lines += [" ".join(map(str, (tokens, len(experts), *experts))) for experts, tokens in sets.items()]
    return "\n".join(lines) + "\n"


def run_annealer(annealer, visits, seed, plan, sets):
    """What the plain annealer finds with the goal, the bound and the slots of `plan`; None if no placement."""
    goal, cluster, before = plan["provenance"]["options"], plan["cluster"], cpu_seconds()
    found = []
    for of_layer in sets:
        done = subprocess.run(
            [annealer, *map(str, (cluster["num_nodes"], cluster["ranks_per_node"], goal["rank_copy_cost"],
                                  goal["node_copy_cost"], goal["max_imbalance"], visits, seed,
                                  int(goal["redundant_slots"])))],
            input=text_of_sets(plan["num_experts"], of_layer), capture_output=True, text=True, check=True)
        found.append([float(x) for x in done.stdout.split()])
    cost = sum(cost for cost, _ in found) / len(found)
    if math.isinf(cost):
        return None
    return Result(0, cost, max(imbalance for _, imbalance in found), cpu_seconds() - before)


def is_worse(result, than):
    """By how far the bound is exceeded, then by the cost."""
    if not math.isclose(result.excess, than.excess, rel_tol=SAME, abs_tol=SAME):
        return result.excess > than.excess
    return result.cost > than.cost * (1 + SAME)


def described(result):
    excess = f", {result.excess:.4f} above the bound" if result.excess > 0 else ""
    return f"a cost of {result.cost:.4f}{excess}"


def faults_of_row(tokens, efforts, row):
    faults = []
    for less, more, a, b in zip(row, row[1:], efforts, efforts[1:]):
        if is_worse(more, less):
            faults.append(f"{tokens} tokens: effort {b:g} is worse than {a:g}: {described(more)}, instead of "
                          f"{described(less)}")
        if more.seconds > START_S + MOST_GROWTH ** math.log2(b / a) * less.seconds:
            faults.append(f"{tokens} tokens: effort {b:g} takes {more.seconds / less.seconds:.1f} times as long as "
                          f"{a:g}")
    return faults


def faults_of_column(effort, tokens, seconds, fewer_tokens, before):
    if seconds <= START_S + MOST_GROWTH ** math.log2(tokens / fewer_tokens) * before:
        return []
    return [f"effort {effort:g}: {tokens} tokens take {seconds / before:.1f} times as long as {fewer_tokens}"]


def cell(result):
    if result is None:
        return f"{'none':>25}"
    mark = "*" if result.excess > 0 else " "
    return f"{result.cost:9.4f} {result.worst_imbalance:6.3f}{mark} {result.seconds:5.1f} s"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("c2r", type=pathlib.Path)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=6)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cluster", default="1x4")
    parser.add_argument("--redundant-slots", type=int, default=0)
    parser.add_argument("--max-imbalance", type=float, default=1.1)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 4000, 16000, 64000])
    parser.add_argument("--efforts", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--annealer", type=pathlib.Path, help="bench/plain_annealer.cc, compiled")
    parser.add_argument("--visits", type=float, default=100, help="millions of sets that --annealer serves a layer")
    options = parser.parse_args()
    options.c2r = options.c2r.resolve()
    options.annealer = options.annealer and options.annealer.resolve()
    return options


def main():
    options = parse()
    faults, missed, column = [], [], {}
    names = [f"effort {effort:g}" for effort in options.efforts] + ["annealer"] * bool(options.annealer)
    print(f"{'tokens':>8} " + " ".join(f"{name:>25}" for name in names))
    with tempfile.TemporaryDirectory() as name:
        for tokens in options.tokens:
            trace, ids = make_trace(options, tokens, pathlib.Path(name))
            sets = sets_of_layers(ids)
            plans, row = zip(*(run_plan(options, trace, sets, effort) for effort in options.efforts))
            shown = list(row)
            if options.annealer:
                shown.append(run_annealer(options.annealer, options.visits, options.seed, plans[0], sets))
            print(f"{tokens:8} " + " ".join(map(cell, shown)), flush=True)
            faults += faults_of_row(tokens, options.efforts, row)
            for effort, result in zip(options.efforts, row):
                if result.excess > 0:
                    missed.append(f"{tokens} tokens: effort {effort:g} misses the bound of {options.max_imbalance:g}")
                if effort in column:
                    faults += faults_of_column(effort, tokens, result.seconds, *column[effort])
                column[effort] = (tokens, result.seconds)
    print("\n".join([*missed, *(faults or ["costs and times grow as they should"])]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
