"""The benchmarks of expert parallelism: what they compute of measurements, and, where time is no matter, a dry run."""

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
    assert bench.even_flop_per_byte(problem, tmp_path, tokens=2) == 6 * 10 * 7 * 3 / (3 * 10 * 2)


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
    assert all(len(seconds) == 6 for result in timed for seconds in result["seconds"].values())
