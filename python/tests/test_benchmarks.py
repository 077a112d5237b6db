"""The benchmarks of expert parallelism: what they compute of measurements, and, where time is no matter, a dry run."""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_interval_is_of_the_ranks_that_binomial_tables_give():
    bench = load("expert_parallel_torch")
    # 15 throws: 3 heads or fewer have 1.8 %, 4 or fewer 5.9 %. 6 throws: none has 1.6 %.
    assert bench.interval([15.0, *range(1, 15)]) == (8, 4, 12)
    assert bench.interval([6.0, *range(1, 6)]) == (3.5, 1, 6)


def test_flop_per_byte_is_of_the_busiest_rank(tmp_path):
    bench = load("expert_parallel_torch")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"num_experts": 2}))
    # Two ranks with two tokens each and one expert each. Rank 0 computes 3 rows; 2 rows cross the link to it and 1 the
    # other way, and all of them come back: 3 rows of 2 bytes a value in each direction.
    torch.save({"free contiguous": torch.tensor([[[0], [1], [0], [0]]])}, tmp_path / "routings.pt")
    problem = (10, 7, None, None, None)  # hidden, intermediate
    forward = 6 * 10 * 7 * 3 / (3 * 10 * 2)
    assert bench.even_flop_per_byte(problem, tmp_path, tokens=2, mode="forward") == forward
    # Backward: two products for each one of forward, and as many bytes.
    assert bench.even_flop_per_byte(problem, tmp_path, tokens=2, mode="train") == (1 + 2) / (1 + 1) * forward


def test_links_are_even_where_communicating_takes_as_long_as_the_rest():
    rank = load("expert_parallel_torch_rank")
    # 1 s on links without limit; 50 Mbit/s add 3 s, so 150 Mbit/s add 1.
    assert rank.next_mbit(50, seconds=4.0, free=1.0) == 150
    assert rank.next_mbit(150, seconds=2.0, free=1.0) == 150
    assert rank.next_mbit(50, seconds=0.9, free=1.0) == 5  # noise; links can only be slower
    assert rank.next_mbit(1, seconds=1.1, free=1.0) == 1


def test_a_rank_keeps_the_experts_that_the_exchanges_take_for_its_own():
    rank = load("expert_parallel_torch_rank")
    experts = torch.nn.Module()
    experts.gate_up_proj = torch.nn.Parameter(torch.arange(6.0).view(6, 1, 1))
    experts.num_experts = 6
    own = rank.keep_own_experts(experts, rank=1, size=3)
    assert own.num_experts == 2 and own.gate_up_proj.flatten().tolist() == [2, 3]
    assert own.gate_up_proj.requires_grad


def group(names, **seconds):
    return {
        "variants": [{"name": name, "chunks": 2 if name == "all" else 1} for name in names],
        "seconds": {name: seconds[name] for name in names},
        "free_s": {"all_to_all": [1.0], names[1]: [0.5]},
        "bytes_sent": {name: [100, 200] if name == "all_to_all" else [90, 120] for name in names},
    }


def cell(groups, names):
    return {"cell": {"mode": "train", "point": "even"}, "problem": "qwen1.5-moe", "tokens": 8, "mbit": 7,
            "flop_per_byte": 10.0, "groups": groups, "variants": [{"name": name} for name in names]}  # fmt: skip


def test_a_variant_is_compared_with_the_baseline_of_its_own_rounds(capsys, tmp_path):
    bench = load("expert_parallel_torch")
    first = group(["all_to_all", "all"], all_to_all=[2.0] * 6, all=[1.0] * 6)
    second = group(["all_to_all", "other"], all_to_all=[4.0] * 6, other=[3.0] * 6)
    names = ["all_to_all", "all", "other"]
    path = tmp_path / "qwen1.5-moe_train_even.json"
    path.write_text(json.dumps(cell([first], names)))
    wanted = [(name, "c2r", None, "free placed") for name in names]
    assert not bench.is_complete(path, wanted) and not bench.is_complete(tmp_path / "none.json", wanted)
    path.write_text(json.dumps(cell([first, second], names)))
    assert bench.is_complete(path, wanted)
    bench.report(argparse.Namespace(work=tmp_path))
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    # The baseline took 2 and 4 s, and 1 s on links without limit, where ours took 0.5 s.
    assert rows[2][3:] == ["3000", "67 %", "0.25", "0.50 (0.50 to 0.50)", "all, 2 chunks", "0.60"]
    assert rows[3][6:] == ["0.75 (0.75 to 0.75)", "other", "0.60"]


@pytest.mark.skipif("C2R_LONG_TESTS" not in os.environ, reason="takes minutes; C2R_LONG_TESTS=1 runs it")
def test_the_dry_run_of_the_gpu_benchmark_leaves_every_result(tmp_path):
    pytest.importorskip("transformers", minversion="5.23")
    pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module, which plans")
    environment = {**os.environ, "C2R_PYTHON": sys.executable}
    command = [str(ROOT / "tools" / "bench_gpu.sh"), "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    training = [json.loads(path.read_text()) for path in tmp_path.glob("training-*.json")]
    assert len(training) == 8 and all(result["passed"] for result in training)
    timed = [json.loads(path.read_text()) for path in tmp_path.glob("*_local*.json")]
    assert len(timed) == 8 and {result["ranks"] for result in timed} == {1, 2}
    layers = [json.loads(path.read_text()) for path in tmp_path.glob("layer-torch-*.json")]
    assert len(layers) == 2 and all(len(seconds) == 15 for result in layers for seconds in result["seconds"].values())
    groups = [group for result in timed for group in result["groups"]]
    assert sum(len(group["variants"]) - 1 for group in groups) == 8 * 6
    assert all(len(seconds) == 6 for group in groups for seconds in group["seconds"].values())
