"""LLaMA-MoE in transformers: against its definition, the published names, its noise and losses, and what is refused."""

import pathlib
import sys

import pytest
import safetensors.torch
import torch
from families import NUM_EXPERTS, TOP_K, VOCABULARY, random_lists, random_model

import c2r.hf
from c2r.hf.llama_moe import LlamaMoeConfig, LlamaMoeRouter

transformers = pytest.importorskip("transformers", minversion="5.23")

ROOT = pathlib.Path(__file__).parents[2]
NANO = ROOT / "models" / "nano-llama-moe"
sys.path.append(str(ROOT))
from training.gates import NoisyTanhGate
from training.reference_llama_moe import ReferenceLlamaMoe


def load(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()


def random_ids(shape=(2, 11), seed=3):
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def saved(folder, family="llama_moe"):
    model = random_model(family)
    model.save_pretrained(folder)
    return model


# float32 has 2^-24 of rounding. An output is the end of a chain of fewer than 10 sums a layer over at most 256 terms,
# whose errors add up as the root of their number: 10 * 8 layers * 16 * 2^-24 = 8e-5 of the largest value.
def close_to(reference, num_layers, width):
    bound = 10 * num_layers * width**0.5 * 2.0**-24
    return {"rtol": 0, "atol": bound * float(reference.abs().max())}


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_the_trained_model_computes_what_the_definition_says(implementation):
    tokens = [5, 77, 1234, 8000, 3, 99, 2]
    expected = ReferenceLlamaMoe(NANO).logits(tokens)
    model = load(NANO)
    model.set_experts_implementation(implementation)
    out = model(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(out, expected, **close_to(expected, 8, 256))


def test_a_random_model_with_widths_that_differ_between_layers_computes_what_the_definition_says(tmp_path):
    model, ids = saved(tmp_path), random_ids((1, 9))
    reference = ReferenceLlamaMoe(tmp_path)
    reference.config["rope_theta"] = model.config.rope_parameters["rope_theta"]  # transformers 5 writes it inside
    expected = reference.logits(ids[0].tolist())
    torch.testing.assert_close(model(ids).logits[0], expected, **close_to(expected, 3, 32))


def test_a_published_checkpoint_stays_as_it_is_byte_for_byte(tmp_path):
    load(NANO, "auto").save_pretrained(tmp_path)
    name = "model.safetensors"
    assert (tmp_path / name).read_bytes() == (NANO / name).read_bytes()


def test_saved_names_are_the_published_ones_and_load_again_bit_for_bit(tmp_path):
    model = saved(tmp_path)
    found = safetensors.torch.load_file(tmp_path / "model.safetensors")
    experts = model.model.layers[1].mlp.experts
    for e in range(NUM_EXPERTS):
        prefix = "model.layers.1.mlp.calculator.experts.weight_"
        gate_up = torch.cat([found[f"{prefix}gate.{e}"], found[f"{prefix}up.{e}"]])
        assert torch.equal(gate_up, experts.gate_up_proj[e])
        assert torch.equal(found[f"{prefix}down.{e}"], experts.down_proj[e])
    for part in ("gate_network.0.weight", "gate_network.2.weight", "weight_noise.weight"):
        assert f"model.layers.2.mlp.gate.{part}" in found
    again = load(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_generation_with_a_cache_equals_the_forward_pass():
    model, ids = random_model("llama_moe"), random_ids((1, 5))
    out = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    for length in range(5, 11):
        assert out[0, length] == model(out[:, :length]).logits[0, -1].argmax()


def test_choice_noise_and_balance_loss_are_those_of_the_gate_that_trains_our_models():
    config = LlamaMoeConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, num_experts=8, num_selects=3,
                            intermediate_size=32)  # fmt: skip
    ours, theirs = LlamaMoeRouter(config, 0), NoisyTanhGate(16, 8, 3, config.gate_noise_epsilon)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(40, 16)
    for is_training in (False, True):
        ours.train(is_training)
        theirs.train(is_training)
        torch.manual_seed(7)
        logits, weights, idx = ours(x)
        balance = ours.balance_loss(x, logits, weights, idx)
        torch.manual_seed(7)
        routing = theirs(x)
        assert torch.equal(idx, routing.topk_idx)
        torch.testing.assert_close(weights, routing.topk_weights)
        torch.testing.assert_close(balance, routing.balance_loss)
        for router, loss in ((ours, balance), (theirs, routing.balance_loss)):
            router.zero_grad()
            loss.backward()
        for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            if is_training or "noise" not in name:
                torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6)


def smooth_load_by_definition(clean, noisy, std, chosen, allowed):
    """One token: P(expert is chosen | fresh noise on it alone), the token's best expert taken as given."""
    load = torch.zeros(len(clean))
    for e in range(len(clean)):
        left = [float(noisy[o]) for o in allowed if o not in chosen]
        if e in chosen:
            beats = max(left, default=-float("inf"))
        elif e in allowed:
            beats = float(noisy[chosen[-1]])
        else:
            continue
        load[e] = torch.special.ndtr((clean[e] - beats) / std[e])
    return load


@pytest.mark.parametrize("top_t", [TOP_K - 1, 5])
def test_the_balance_loss_is_of_the_constrained_choice(top_t):
    model, ids, lists = random_model("llama_moe").train(), random_ids(), random_lists(top_t)
    constraint = c2r.hf.constrain(model, lists)
    seen = [None] * 3
    for at, router in enumerate(constraint.routers):
        router.module.register_forward_hook(lambda m, i, o, at=at: seen.__setitem__(at, (i[0], *o)))
    out = model(ids, labels=ids)
    total = 0
    for layer, (x, noisy, weights, idx) in enumerate(seen):
        gate = constraint.routers[layer].module
        clean, std = gate.gate_network(x), torch.nn.functional.softplus(gate.weight_noise(x)) + 0.01
        importance, load = torch.zeros(NUM_EXPERTS), torch.zeros(NUM_EXPERTS)
        for t, chosen in enumerate(idx.tolist()):
            importance[chosen] += weights[t]
            allowed = {chosen[0], *lists[layer][chosen[0]]}
            assert set(chosen) <= allowed
            load += smooth_load_by_definition(clean[t], noisy[t], std[t], chosen, allowed)
        total += sum(part.var() / part.mean() ** 2 for part in (importance, load))
    torch.testing.assert_close(out.aux_loss, total, rtol=1e-5, atol=0)
    out.loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    constraint.remove()
    torch.manual_seed(1)
    free = model(ids, labels=ids).aux_loss
    assert abs((free - out.aux_loss).item()) > 1e-3 * free.item()


def test_no_experts_of_full_size_are_allocated():
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(LlamaMoeConfig(num_hidden_layers=2))
    assert model.model.layers[0].mlp.experts.down_proj.shape == (16, 4096, 688)


def test_gradient_checkpointing_gives_the_same_gradients():
    model, ids = random_model("llama_moe").train(), random_ids()
    grads = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        torch.manual_seed(2)
        model(ids, labels=ids).loss.backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for once, again in zip(*grads, strict=True):
        torch.testing.assert_close(once, again, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"gate_type": "SwitchBalancedGate"}, "gate_type is 'SwitchBalancedGate', but only 'TopKBalancedNoisyGate'"),
        ({"gate_network": "linear"}, "gate_network is 'linear', but only 'mlp'"),
        ({"gate_use_softmax": False}, "gate_use_softmax is False"),
        ({"calculator_type": "SwitchDropTokenCalculator"}, "calculator_type is 'SwitchDropTokenCalculator'"),
        ({"multiply_gate_scores": False}, "multiply_gate_scores is False"),
        ({"add_weight_norm": True}, "add_weight_norm is True"),
        ({"num_selects": 5}, r"num_selects is 5, but must be in \[1, 4\]"),
        ({"size_experts": [[2, 2, 2, 3]]}, r"layer 0 of size_experts is \[2, 2, 2, 3\], but only equal widths"),
        ({"size_experts": [[2, 2, 2]]}, "layer 0 of size_experts must have 4 widths"),
        ({"size_experts": [[2] * 4] * 2}, "size_experts has 2 layers, but num_hidden_layers is 1"),
        ({"intermediate_size": 9}, "4 experts cannot share intermediate_size 9 evenly"),
        ({"score_scale_factor": [1.0, 2.0]}, "score_scale_factor has 2 numbers, but there are 1 layers"),
    ],
)
def test_what_the_model_is_not_is_refused_by_name(changed, says):
    given = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_experts": 4, "num_selects": 2}
    with pytest.raises(ValueError, match=says):
        LlamaMoeConfig(**{"intermediate_size": 8} | given | changed)
