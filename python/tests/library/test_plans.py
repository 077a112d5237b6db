"""Plans from Python: the same as the command line's, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import c2r


def clustered(num_tokens=1200, num_experts=16, top_k=3, num_layers=2, seed=0):
    """Tokens that choose mostly within one of four groups of experts that are not neighbours."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, num_tokens)
    layers = []
    for _ in range(num_layers):
        score = rng.random((num_tokens, num_experts)) + 0.6 * (np.arange(num_experts) % 4 == group[:, None])
        layers.append(np.argsort(-score, axis=1)[:, :top_k].astype(np.int32))
    return layers


@pytest.fixture
def trace(tmp_path):
    header = c2r.TraceHeader(num_experts=16, top_k=3, layer_indices=[0, 1], model="m")
    writer = c2r.TraceWriter(tmp_path / "t.safetensors", header)
    for start in range(0, 1200, 300):
        writer.start_sequence()
        for layer, ids in enumerate(clustered()):
            writer.append(layer, ids[start : start + 300])
    writer.finish()
    return c2r.Trace(tmp_path / "t.safetensors")


def run(tmp_path, *words):
    command = [sys.executable, "-m", "c2r", *map(str, words)]
    return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout


def without_names(plan):
    plan = json.loads(plan)
    plan["provenance"].pop("c2r_version")
    for entry in [*plan["provenance"]["inputs"], *plan["predictions"]]:
        entry.pop("name", None), entry.pop("trace", None)
    return plan


def test_a_plan_is_that_of_the_command_line(tmp_path, trace):
    plan = c2r.plan(trace, "1x4", fit="even", top_t=5, redundant_slots=1, max_imbalance=1.2)
    run(tmp_path, "plan", "t.safetensors", "--cluster", "1x4", "--fit", "even", "--top-t", 5, "--redundant-slots", 1,
        "--max-imbalance", 1.2, "-o", "p.json")  # fmt: skip
    assert without_names(plan.to_text()) == without_names((tmp_path / "p.json").read_text())
    assert [layer.shape for layer in plan.slots()] == [(4, 5), (4, 5)]
    assert [layer.shape for layer in plan.collaborators()] == [(16, 5), (16, 5)]
    plan.save(tmp_path / "q.json")
    assert c2r.Plan.load(tmp_path / "q.json") == plan
    of_path = c2r.plan(
        str(tmp_path / "t.safetensors"), "1x4", fit="even", top_t=5, redundant_slots=1, max_imbalance=1.2
    )
    assert of_path == plan


def copies_by_definition(layers, slots):
    """Mean distinct ranks of a token, over layers."""
    means = []
    for ids, layer in zip(layers, slots, strict=True):
        rank = {expert: r for r, row in enumerate(layer.tolist()) for expert in row}
        means.append(np.mean([len({rank[e] for e in token}) for token in ids.tolist()]))
    return means


def test_arrays_need_no_file_and_copies_are_counted_as_defined():
    layers = clustered()
    plan = c2r.plan(layers, "1x4", num_experts=16)
    steps = c2r.simulate(plan, layers, num_experts=16, hidden=64)
    found = next(step for step in steps if step["step"] == "placement")
    np.testing.assert_allclose(found["copies_per_token"], copies_by_definition(layers, plan.slots()), rtol=1e-12)
    assert np.mean(found["copies_per_token"]) < np.mean(steps[0]["copies_per_token"])


def test_a_simulation_is_that_of_the_command_line(tmp_path, trace):
    plan = c2r.plan(trace, "2x2", fit="even")
    plan.save(tmp_path / "p.json")
    theirs = json.loads(run(tmp_path, "simulate", "p.json", "t.safetensors", "--on", "odd", "--json", "--hidden", 64))
    ours = c2r.simulate(plan, trace, on="odd", hidden=64)
    for step in [*ours, *theirs["steps"]]:
        step.pop("trace")
    assert ours == theirs["steps"]


def trace_with_logits(folder):
    """A trace of 40 tokens, 8 experts and top-2, in which 3 choices are not the best of their logits."""
    rng = np.random.default_rng(3)
    logits = rng.permuted(np.tile(np.arange(8, dtype=np.float32), (40, 1)), axis=1)
    chosen = np.argsort(-logits, axis=1)[:, :2]
    chosen[[4, 9, 30], 1] = np.argsort(-logits, axis=1)[[4, 9, 30], 5]
    (folder / "logits_rank0.bin").write_bytes((logits.view(np.uint32) >> 16).astype("<u2").tobytes())
    records = [{"step": step, "stage": "pre_dispatch", "block": "decoder", "layer": 1, "rank": 0, "num_tokens": 20,
                "topk": 2, "top_indices": chosen[20 * step : 20 * step + 20].tolist(), "logit_offset": 320 * step,
                "logit_bytes": 320, "logit_shape": [20, 8]} for step in (0, 1)]  # fmt: skip
    (folder / "router_trace_rank0.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return c2r.import_file(folder / "router_trace_rank0.jsonl", "megatron", folder / "l.safetensors", num_experts=8)


def test_routing_again_counts_choices_that_logits_do_not_explain(tmp_path):
    trace = trace_with_logits(tmp_path)
    plan = c2r.plan(trace, "1x2", top_t=4)
    plan.save(tmp_path / "p.json")
    *before, by_lists, limited = c2r.simulate(plan, trace, top_t=3, policy="device-limited:1")
    assert [by_lists["step"], limited["step"]] == ["top-t:3", "device-limited:1"]
    for step in (by_lists, limited):
        assert (step["num_choices"], step["num_other_choices"]) == (40, 3)
    assert all("num_choices" not in step for step in before)
    theirs = json.loads(run(tmp_path, "simulate", "p.json", "l.safetensors", "--top-t", 3, "--policy",
                            "device-limited:1", "--json"))  # fmt: skip
    assert (theirs["num_choices"], theirs["num_other_choices"]) == (40, 3)
    assert limited["copies_per_token"] == theirs["steps"][-1]["copies_per_token"] == [1]


def test_an_engine_counts_as_its_backend_sends(tmp_path, trace):
    use = {"engine": "sglang", "backend": "deepep"}
    plan = c2r.plan(trace, "2x2", fit="even", **use)
    plan.save(tmp_path / "p.json")
    theirs = json.loads(run(tmp_path, "simulate", "p.json", "t.safetensors", "--on", "odd", "--json", "--hidden", 64,
                            "--engine", "sglang", "--backend", "deepep"))  # fmt: skip
    assert c2r.engine_traffic(plan, trace, **use, on="odd", hidden=64) == theirs["engine"]
    steps = c2r.simulate(plan, trace, **use, on="odd", hidden=64)
    assert [step["step"] for step in steps] == ["SGLang, DeepEP normal", "placement"]
    assert c2r.compare(trace, [plan], **use, on="odd")["base"]["step"] == "SGLang, DeepEP normal"
    with pytest.raises(ValueError, match="a backend of sglang is none, deepep, "):
        c2r.engine_traffic(plan, trace, "sglang", backend="naive")
    with pytest.raises(ValueError, match="copy_mode and engine both say"):
        c2r.simulate(plan, trace, **use, copy_mode="per-rank")


TIMES = {"hidden": 64, "intermediate": 128, "hardware": "h800-ib400"}
TIME_WORDS = ["--hidden", 64, "--intermediate", 128, "--hardware", "h800-ib400"]


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, []),
        ({"batch_tokens": 256}, ["--batch-tokens", 256]),
        ({"dispatch_type": "fp8"}, ["--dispatch-type", "fp8"]),
        ({"weight_type": "fp8", "batch_tokens": 64}, ["--weight-type", "fp8", "--batch-tokens", 64]),
        ({"wire_width": 100, "overlap": "overlapped"}, ["--wire-width", 100, "--overlap", "overlapped"]),
        (
            {"engine": "sglang", "backend": "deepep", "phase": "decode", "batch_tokens": 64},
            ["--engine", "sglang", "--backend", "deepep", "--phase", "decode", "--batch-tokens", 64],
        ),
    ],
)
def test_times_are_those_of_the_command_line(tmp_path, trace, options, words):
    plan = c2r.plan(trace, "2x2", fit="even")
    plan.save(tmp_path / "p.json")
    common = ["t.safetensors", "--on", "odd", "--json", *TIME_WORDS, *words]
    theirs = json.loads(run(tmp_path, "simulate", "p.json", *common))["steps"]
    ours = c2r.simulate(plan, trace, on="odd", **TIMES, **options)
    assert all(min(step["predicted_layer_time_s"]) > 0 for step in ours)
    assert [step["predicted_layer_time_s"] for step in ours] == [step["predicted_layer_time_s"] for step in theirs]
    assert [step["predicted_dispatch_s"] for step in ours] == [step["predicted_dispatch_s"] for step in theirs]
    compared = c2r.compare(trace, {"p.json": plan}, on="odd", baselines=[], **TIMES, **options)
    assert compared["placements"][0]["predicted_layer_time_s"] == ours[-1]["predicted_layer_time_s"]


def test_a_time_is_minimized_as_the_command_line_does(tmp_path, trace):
    use = {"minimize": "time", "batch_tokens": 64, "engine": "sglang", "backend": "deepep", "phase": "decode"}
    plan = c2r.plan(trace, "2x2", fit="even", **TIMES, **use)
    run(tmp_path, "plan", "t.safetensors", "--cluster", "2x2", "--fit", "even", *TIME_WORDS, "--minimize", "time",
        "--batch-tokens", 64, "--engine", "sglang", "--backend", "deepep", "--phase", "decode", "-o", "p.json")  # fmt: skip
    assert without_names(plan.to_text()) == without_names((tmp_path / "p.json").read_text())
    options = json.loads(plan.to_text())["provenance"]["options"]
    assert (options["batch_tokens"], options["copy_mode"]) == (64, "per-expert")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"intermediate": 8}, "intermediate needs hidden"),
        ({"hidden": 8, "intermediate": 8}, "the cluster has no device_flop_per_s"),
        ({"batch_tokens": 8}, "batch_tokens is for predicted times"),
        ({**TIMES, "batch_tokens": -1}, "batch_tokens is -1"),
        ({**TIMES, "dispatch_type": "int4"}, "a type is bf16 or fp8; not 'int4'"),
        ({**TIMES, "overlap": "somehow"}, "not 'somehow'"),
        ({"hardware": "abacus"}, "not 'abacus'"),
        ({"hidden": -1}, "must be at least 0"),
        ({"policy": "top-t:1"}, "has no logits"),
        ({"policy": "by-post"}, "a rule is top-t:T or device-limited:M"),
    ],
)
def test_times_and_rules_that_cannot_be_are_refused(trace, options, says):
    plan = c2r.plan(trace, "1x4")
    with pytest.raises(ValueError, match=says):
        c2r.simulate(plan, trace, **options)


def test_counts_alone_are_enough(trace):
    counts = c2r.count_collaboration(trace)
    plan = c2r.plan(counts, "1x4")
    steps = c2r.simulate(plan, counts)
    assert [step["step"] for step in steps] == ["per-expert", "deduplication", "placement"]
    compared = c2r.compare(counts, {"ours": plan}, baselines=["contiguous", "balance"])
    assert [entry["placement"] for entry in compared["placements"]] == ["contiguous", "balance", "ours"]
    with pytest.raises(ValueError, match="counts are of all sequences, not of fit=even"):
        c2r.plan(counts, "1x4", fit="even")
    with pytest.raises(ValueError, match="counts are of all sequences, not of on=odd"):
        c2r.simulate(plan, counts, on="odd")


def test_a_comparison_has_the_plans_and_the_baselines(trace):
    plan = c2r.plan(trace, "1x4", fit="even")
    compared = c2r.compare(trace, {"ours": plan}, on="odd", baselines=["contiguous", "eplb"])
    assert [entry["placement"] for entry in compared["placements"]] == ["contiguous", "eplb", "ours"]


def test_a_report_is_that_of_the_command_line(tmp_path, trace):
    plan = c2r.plan(trace, "2x2", fit="even")
    plan.save(tmp_path / "p.json")
    compared = c2r.compare(trace, {"p.json": plan}, on="odd")
    (tmp_path / "compared.json").write_text(json.dumps(compared))
    (tmp_path / "score.jsonl").write_text(json.dumps({"log_likelihood": -30, "num_tokens": 10}))
    words = ["t.safetensors", "--plan", "p.json", "--on", "odd", *TIME_WORDS, "--batch-tokens", 64, "--engine", "sglang",
             "--backend", "deepep", "--compare", "compared.json", "--score", "score.jsonl"]  # fmt: skip
    run(tmp_path, "report", *words, "-o", "theirs.html")
    theirs = run(tmp_path, "report", *words, "--json")
    ours = c2r.report(trace, tmp_path / "p.json", tmp_path / "ours.html", on="odd", **TIMES, batch_tokens=64,
                      engine="sglang", backend="deepep", compare=compared, score=tmp_path / "score.jsonl")  # fmt: skip
    pages = [(tmp_path / f"{whose}.html").read_text() for whose in ("ours", "theirs")]
    folder = f"{tmp_path}{os.sep}"  # of the files, which the command was given without it
    assert json.loads(json.dumps(ours).replace(folder, "")) == json.loads(theirs.replace(folder, ""))
    assert pages[0].replace(folder, "") == pages[1].replace(folder, "")
    assert ours["answer"]["is_advised"] is False  # of two sequences
    assert c2r.report(trace, plan, on="odd")["plan"]["name"] == "plan"


def test_a_report_shows_constraints_and_single_figures(tmp_path, trace):
    plan = c2r.plan(trace, "1x4")
    steps = c2r.simulate(plan, trace, constrained=trace)
    for index, ppl in enumerate((20, 30)):
        (tmp_path / f"s{index}.jsonl").write_text(json.dumps({"log_likelihood": -ppl, "num_tokens": 10}))
    scores = {None: tmp_path / "s0.jsonl", 5: str(tmp_path / "s1.jsonl")}
    made = c2r.report(trace, plan, tmp_path / "f.svg", figure="constraint", constrained={5: steps}, score=scores)
    assert [row["top_t"] for row in made["constraint"]] == [None, 5]
    assert made["constraint"][1]["traffic"]["wire_copies_per_token"] == np.mean(steps[-1]["wire_copies_per_token"])
    assert (tmp_path / "f.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({"figure": "front"}, ValueError, "a figure of this report is waterfall, .*; not 'front'"),
        ({"figure": "waterfall", "output": None}, ValueError, "output is missing"),
        ({"output": "t.safetensors"}, ValueError, "would overwrite the input"),
        ({"output": "p.json"}, ValueError, "would overwrite the input"),
        ({"output": "no/such/folder.html"}, OSError, "no/such"),
        ({"compare": {"placements": []}}, OSError, "compare is not what `c2r compare --json` prints"),
        ({"constrained": {5: []}}, OSError, "it has no step 'constraint'"),
        ({"score": "t.safetensors"}, OSError, "is not what `c2r score --json` prints"),
        ({"copy_mode": "by-post"}, ValueError, "not 'by-post'"),
        ({"cluster": "1x8"}, ValueError, "8"),
    ],
)
def test_a_report_that_cannot_be_leaves_no_file(tmp_path, monkeypatch, trace, options, error, says):
    monkeypatch.chdir(tmp_path)
    c2r.plan(trace, "1x4").save("p.json")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = {"output": "report.html", **options}
    with pytest.raises(error, match=says):
        c2r.report("t.safetensors", "p.json", **arguments)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_export_says_how_it_is_loaded(tmp_path, trace):
    plan = c2r.plan(trace, "1x4")
    with pytest.warns(UserWarning, match="--ep-dispatch-algorithm"):
        usage = plan.export("sglang", tmp_path / "map.json")
    assert f"--init-expert-location {tmp_path / 'map.json'}" in usage
    assert json.loads((tmp_path / "map.json").read_text()).keys() == {"physical_to_logical_map"}
    with pytest.raises(ValueError, match=r"must end in \.json"):
        plan.export("sglang", tmp_path / "map.txt")
    with pytest.raises(ValueError, match="num_hidden_layers makes no difference to vllm-49572, only to sglang"):
        plan.export("vllm-49572", tmp_path / "other.json", num_hidden_layers=3)
    with pytest.raises(ValueError, match="'nonsense'"):
        plan.export("nonsense", tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


@pytest.mark.parametrize(
    "options, says",
    [
        ({"cluster": "1y4"}, "1y4"),
        ({"method": "guess"}, "a method is .*; not 'guess'"),
        ({"minimize": "heat"}, "not 'heat'"),
        ({"top_t": 16}, "top_t"),
        ({"fit": "best"}, "not 'best'"),
        ({"num_threads": -1}, "num_threads is -1"),
        ({"scenarios": "1"}, "their number must be in"),
    ],
)
def test_options_that_do_not_fit_are_refused(trace, options, says):
    with pytest.raises(ValueError, match=says):
        c2r.plan(trace, **{"cluster": "1x4", **options})


def test_ctrl_c_ends_a_search(trace):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        c2r.plan(trace, "1x4", effort=1e9, redundant_slots=1, seconds=120)
