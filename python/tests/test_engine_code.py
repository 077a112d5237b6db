"""Files that the engines' own code writes are read as it meant them, and files of c2r as it loads them.

Each test needs the engine's package and is skipped without it: pip install --no-deps sglang vllm megatron-core, and
pybase64. Only the module that writes or loads is run; the packages' own __init__ would need a GPU's libraries.
"""

import importlib
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")
c2r = pytest.importorskip("c2r", reason="pip install . builds the extension module and the program")
pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module and the program")


def engine_module(monkeypatch, name, **stubs):
    """The module of an engine, in packages that are empty but for `stubs`: the modules of other names that it imports."""
    package, *parts = name.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package}")
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
    names = [package]
    for part in parts:
        if not (folder / part).exists() and not (folder / f"{part}.py").exists():
            pytest.skip(f"the installed {package} has no {name}")
        empty = types.ModuleType(".".join(names))
        empty.__path__ = [str(folder)]
        monkeypatch.setitem(sys.modules, empty.__name__, empty)
        folder, names = folder / part, [*names, part]
    for stub, content in stubs.items():
        module = types.ModuleType(stub.replace("__", "."))
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{name} needs {error.name}: pip install --no-deps {error.name}")


def skewed_loads(num_layers, num_experts, seed):
    """Loads of which few experts have most, so that EPLB makes many replicas of them."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.zipf(1.5, (num_layers, num_experts)).clip(max=10**6), dtype=torch.float32)


def test_maps_of_sglangs_eplb_are_read_and_written_back_as_they_are(tmp_path, monkeypatch):
    eplb = engine_module(monkeypatch, "sglang.srt.eplb.eplb_algorithms.deepseek")
    results = eplb.rebalance_experts(skewed_loads(6, 32, seed=1), 48, 4, 1, 8, False)  # 6 slots on each of 8 ranks
    maps = results[0]
    repeats = sum(6 - len(set(rank.tolist())) for layer in maps for rank in layer.view(8, 6))
    assert repeats > 0, "EPLB put no expert twice on a rank"
    (tmp_path / "map.json").write_text(json.dumps({"physical_to_logical_map": maps.tolist()}))
    shape = {"num_experts": 32, "top_k": 4, "layer_indices": range(6), "cluster": "1x8"}
    with pytest.warns(UserWarning, match=f"^{repeats} slots in . of 6 layers are wasted"):
        plan = c2r.import_file(tmp_path / "map.json", "sglang-placement", **shape)
    for layer, slots in zip(maps.view(6, 8, 6).tolist(), plan.slots(), strict=True):
        for theirs, ours in zip(layer, slots.tolist(), strict=True):
            assert ours == [e if theirs.index(e) == at else -1 for at, e in enumerate(theirs)]
    keys = ("physical_to_logical_map", "logical_to_physical_map", "logical_count")
    all_three = {key: result.tolist() for key, result in zip(keys, results, strict=True)}
    (tmp_path / "eplb.json").write_text(json.dumps(all_three))
    with pytest.warns(UserWarning, match="are wasted"):
        of_three = c2r.import_file(tmp_path / "eplb.json", "eplb-placement", **shape)
    assert all(np.array_equal(*pair) for pair in zip(of_three.slots(), plan.slots(), strict=True))
    with pytest.warns(UserWarning, match="written as the plan has them"):
        plan.export("sglang", tmp_path / "back.json", num_hidden_layers=6)
    assert json.loads((tmp_path / "back.json").read_text())["physical_to_logical_map"] == maps.tolist()

    with pytest.warns(UserWarning, match=f"repaired: {repeats} slots"):
        repaired = c2r.import_file(tmp_path / "map.json", "sglang-placement", repair=True, **shape)
    assert all(len(set(rank)) == 6 for slots in repaired.slots() for rank in slots.tolist())


def sglang_settings(path, redundant, ep_size):
    """What SGLang's loader asks of the process that runs it: 3 layers of 8 experts."""
    moe = types.SimpleNamespace(init_expert_location=str(path), ep_num_redundant_experts=redundant,
                                moe_a2a_backend="deepep", ep_dispatch_algorithm="static", ep_join_mode="none")  # fmt: skip
    parallel = types.SimpleNamespace(ep_size=ep_size, nnodes=1, elastic_ep_initial_size=None)
    return {
        "get_exec": lambda: types.SimpleNamespace(moe=moe),
        "get_parallel": lambda: parallel,
        "get_device": lambda: types.SimpleNamespace(device="cpu"),
        "get_resources": lambda: types.SimpleNamespace(expert_location_metadata=None),
    }


def test_sglang_loads_the_map_of_a_plan(tmp_path, monkeypatch):
    ids = np.random.default_rng(1).random((400, 8)).argsort(axis=1)[:, :2].astype(np.int32)
    plan = c2r.plan([ids] * 3, "1x4", num_experts=8, redundant_slots=1, effort=0.1)
    with pytest.warns(UserWarning, match="--ep-dispatch-algorithm"):
        plan.export("sglang", tmp_path / "map.json", num_hidden_layers=3)
    location = engine_module(
        monkeypatch, "sglang.srt.eplb.expert_location",
        sglang__srt__runtime_context=sglang_settings(tmp_path / "map.json", redundant=4, ep_size=4),
        sglang__srt__elastic_ep__elastic_ep={"elastic_expanded_world_enabled": lambda: False},
    )  # fmt: skip
    shape = location.ModelConfigForExpertLocation(num_layers=3, num_logical_experts=8, num_groups=None)
    monkeypatch.setattr(location.ModelConfigForExpertLocation, "from_model_config", staticmethod(lambda config: shape))
    loaded = location.compute_initial_expert_location_metadata(None, moe_ep_rank=1)
    assert loaded.physical_to_logical_map.view(3, 4, 3).tolist() == [slots.tolist() for slots in plan.slots()]
    for layer, slots in enumerate(plan.slots()):
        for expert in slots[1].tolist():  # rank 1 serves its own experts itself
            assert loaded.logical_to_all_physical_map[layer, expert, 0].item() // 3 == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_routed_experts_that_vllm_encodes_are_read(tmp_path, monkeypatch, dtype):
    pytest.importorskip("pybase64")
    encode = engine_module(monkeypatch, "vllm.utils.serial_utils").numpy2base64
    ids = np.random.default_rng(2).random((9, 3, 16)).argsort(axis=2)[:, :, :4].astype(dtype)
    (tmp_path / "response.json").write_text(json.dumps({"choices": [{"routed_experts": encode(ids)}]}))
    trace = c2r.import_file(tmp_path / "response.json", "vllm", tmp_path / "t.safetensors", num_experts=16)
    for layer in range(3):
        np.testing.assert_array_equal(trace.topk_idx(layer), ids[:, layer])


def test_a_trace_that_megatron_writes_is_read_with_its_logits(tmp_path, monkeypatch):
    router_trace = engine_module(monkeypatch, "megatron.core.transformer.moe.router_trace")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)  # fails without a driver
    tracer = router_trace.RouterTracer(
        str(tmp_path), max_steps=9, rank=0, training_mode=True, capture_hidden_states=True, capture_logits=True
    )
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(8, 5, generator=generator) for _ in range(2)]
    chosen = [[], []]
    for step in range(2):
        hidden = torch.randn(6, 5, generator=generator)
        for layer in (0, 1, 1, 0):  # layers are computed again for the backward pass
            module = types.SimpleNamespace(gating=lambda x, w=weights[layer]: x @ w.T, topk=2)
            scores = module.gating(hidden)
            routing_map = torch.zeros_like(scores).scatter(1, scores.topk(2).indices, 1).bool()
            tracer.make_hook(f"decoder.layers.{layer}.mlp.router")(module, (hidden,), (scores, routing_map))
            if len(chosen[layer]) == step:
                chosen[layer].append(scores.topk(2).indices.sort().values)
        tracer.advance_step()
    tracer.flush()
    with pytest.warns(UserWarning, match="^left out: 4 records that repeat one of the same step"):
        trace = c2r.import_file(tmp_path / "router_trace_rank0.jsonl", "megatron", tmp_path / "t.safetensors",
                                num_experts=8)  # fmt: skip
    assert trace.num_tokens == 12
    plan = c2r.plan(trace, "1x2", top_t=4, effort=0.1)
    steps = {step["step"]: step for step in c2r.simulate(plan, trace, policy="device-limited:1")}
    assert steps["device-limited:1"]["copies_per_token"] == [1, 1]
    for layer in range(2):
        np.testing.assert_array_equal(np.sort(trace.topk_idx(layer)), torch.cat(chosen[layer]).numpy())
