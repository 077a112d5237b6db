"""Traces, plans and comparisons on NumPy arrays: the first program of docs/python.md. Needs c2r with its module."""

import pathlib, tempfile

import numpy as np

import c2r

folder = pathlib.Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
topic = rng.integers(0, 4, 1000)  # tokens of one topic choose among experts e with e % 4 == topic
scores = rng.random((1000, 16)) + 0.5 * (np.arange(16) % 4 == topic[:, None])
topk_idx = np.argsort(-scores, axis=1)[:, :3].astype(np.int32)  # [num_tokens, top_k]

# A trace: of arrays, one a layer; of a file, c2r.Trace("trace.safetensors"); or of what an engine recorded:
np.save(folder / "ids.npy", topk_idx[:, None])  # [num_tokens, num_layers, top_k]
trace = c2r.import_file(folder / "ids.npy", "npy", folder / "trace.safetensors", num_experts=16)

statistics = c2r.count_collaboration(trace)
print(statistics.coactivation(0).shape)  # (16, 16): how many tokens chose both
lists = c2r.collaborators(statistics, top_t=5)  # int32 [num_layers, num_experts, 5]
policy = c2r.RoutingPolicy(3, top_t=5, collaborators=lists[0])
constrained, weights = c2r.route(scores.astype(np.float32), policy)

plan = c2r.plan(trace, "1x4", top_t=5)  # one node of four ranks
for step in c2r.simulate(plan, trace):
    print(step["step"], np.mean(step["copies_per_token"]))
compared = c2r.compare(trace, {"ours": plan}, fit="all")  # beside contiguous placement and EPLB
plan.save(folder / "plan.json")  # as `c2r plan` writes it
print(plan.export("sglang", folder / "expert_location.json"))  # how SGLang is told to load it; cautions are warnings
report = c2r.report(trace, plan, folder / "report.html", compare=compared)  # a page for people who decide
print(report["answer"]["sentence"])  # "Do not load this plan: ...", for one sequence is too few
