"""Constrained models of transformers: choices, weights, gradients, losses, configs, and what is refused."""

import json

import pytest
import torch
from families import (
    CONFIGS,
    NORMALIZES,
    NUM_EXPERTS,
    NUM_LAYERS,
    SCORE_SCALE,
    TOP_K,
    VOCABULARY,
    choose_by_definition,
    random_lists,
    random_model,
    weigh_by_definition,
)

import c2r
import c2r.hf

transformers = pytest.importorskip("transformers", minversion="5.23")


def random_ids(shape=(2, 17), seed=3):
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def record(constraint):
    """The outputs of each router, as the experts get them."""
    seen = [None] * len(constraint.routers)
    for at, router in enumerate(constraint.routers):
        router.module.register_forward_hook(lambda module, inputs, output, at=at: seen.__setitem__(at, output))
    return seen


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("top_t", [TOP_K - 1, 5, [3, 6, 11]])
def test_every_choice_is_the_rule_token_by_token(family, top_t):
    model, lists = random_model(family), random_lists(top_t)
    constraint = c2r.hf.constrain(model, lists)
    seen = record(constraint)
    model(random_ids())
    num_changed = 0
    for layer in range(NUM_LAYERS):
        logits, weights, idx = seen[layer]
        free = logits.topk(TOP_K).indices
        for t in range(len(logits)):
            chosen = choose_by_definition(logits[t], lists[layer], TOP_K)
            assert idx[t].tolist() == chosen
            num_changed += set(chosen) != set(free[t].tolist())
            # float32: a softmax of 12 terms and two quotients, some 20 roundings
            expected = weigh_by_definition(logits[t].float(), chosen, family)
            torch.testing.assert_close(weights[t].float(), expected, rtol=20 * 2.0**-24, atol=0)
    assert num_changed > 0


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("has_ties", [False, True])
def test_every_choice_is_that_of_the_policy_in_cpp(family, has_ties):
    pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module")
    model, lists = random_model(family), random_lists(5)
    router = c2r.hf.constrain(model, lists).routers[0]
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(2))
    if has_ties:  # few values, so that many logits are equal
        for parameter in router.module.parameters():
            torch.nn.init.zeros_(parameter)
        last = router.module.gate_network[-1] if family == "llama_moe" else router.module
        last.weight.data[:, :2] = torch.randint(-1, 2, (NUM_EXPERTS, 2), generator=torch.Generator().manual_seed(3))
        x[:, :2] = torch.randint(-1, 2, (200, 2), generator=torch.Generator().manual_seed(4))
    logits, weights, topk_idx = router.module(x)
    norm = family in NORMALIZES
    scoring = "softmax-over-chosen" if family in ("gpt_oss", "llama_moe") else "softmax"
    scale = SCORE_SCALE if family == "llama_moe" else 1.0
    policy = c2r.RoutingPolicy(TOP_K, scoring=scoring, norm_topk_prob=norm, scale=scale, top_t=5,
                               collaborators=torch.tensor(lists[0], dtype=torch.int32))  # fmt: skip
    expected_idx, expected_weights = c2r.route(logits.detach().float(), policy)
    assert torch.equal(topk_idx, torch.from_numpy(expected_idx).long())
    # float32: a softmax of 12 terms and two quotients on both sides
    torch.testing.assert_close(weights.float(), torch.from_numpy(expected_weights), rtol=40 * 2.0**-24, atol=0)
    assert not has_ties or len(logits.unique()) < 10


@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_are_those_of_the_rule(family):
    model, lists = random_model(family), random_lists(5)
    constraint = c2r.hf.constrain(model, lists)
    router = constraint.routers[1].module
    parameters = list(router.parameters()) if family != "llama_moe" else list(router.gate_network.parameters())
    x = torch.randn(11, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    factors = torch.randn(11, TOP_K, generator=torch.Generator().manual_seed(2))
    (router(x)[1] * factors).sum().backward()
    found = [leaf.grad.clone() for leaf in (x, *parameters)]
    for leaf in (x, *parameters):
        leaf.grad = None
    if family == "llama_moe":
        logits = torch.tanh(x @ parameters[0].T) @ parameters[1].T
    else:
        logits = torch.nn.functional.linear(x, router.weight, getattr(router, "bias", None))
    rows = [weigh_by_definition(row, choose_by_definition(row, lists[1], TOP_K), family) for row in logits]
    (torch.stack(rows) * factors).sum().backward()
    for gradient, expected in zip(found, [leaf.grad for leaf in (x, *parameters)], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("family", CONFIGS)
def test_removing_it_gives_back_the_model_bit_for_bit(family):
    model, ids = random_model(family), random_ids()
    before, config = model(ids).logits, model.config.to_dict()
    constraint = c2r.hf.constrain(model, random_lists(4))
    assert not torch.equal(model(ids).logits, before)
    constraint.remove()
    constraint.remove()
    assert torch.equal(model(ids).logits, before)
    assert model.config.to_dict() == config


@pytest.mark.parametrize("family", CONFIGS)
def test_a_saved_model_is_constrained_again_by_its_config(family, tmp_path):
    model, ids, lists = random_model(family), random_ids(), random_lists([3, 6, 11])
    c2r.hf.constrain(model, lists)
    expected = model(ids).logits
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["top_t"] == 11 and config["collaborative_list"] == lists
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert not torch.equal(again(ids).logits, expected)  # plain transformers routes freely
    c2r.hf.constrain(again)
    assert torch.equal(again(ids).logits, expected)


def test_lists_as_the_official_configs_have_them_are_cut_to_top_t():
    model, lists = random_model("olmoe"), random_lists(NUM_EXPERTS - 1)
    model.config.top_t = 5
    model.config.collaborative_list = [[[*row, e] for e, row in enumerate(layer)] for layer in lists]
    assert c2r.hf.constrain(model).lists == [[row[:5] for row in layer] for layer in lists]


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_the_balance_loss_is_of_the_real_choice(family):
    model, ids = random_model(family), random_ids()
    coefficient = model.router_aux_loss_coef
    free = model(ids, labels=ids, output_router_logits=True)
    every = c2r.hf.constrain(model, random_lists(NUM_EXPERTS - 1))  # lists of all others are no constraint
    same = model(ids, labels=ids, output_router_logits=True)
    torch.testing.assert_close(same.aux_loss, free.aux_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(same.loss, free.loss, rtol=1e-5, atol=0)
    every.remove()
    assert model.router_aux_loss_coef == coefficient

    constraint = c2r.hf.constrain(model, random_lists(3))
    out = model(ids, labels=ids, output_router_logits=True)
    theirs = transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func(
        out.router_logits, NUM_EXPERTS, TOP_K
    )
    num_rows = sum(map(len, out.router_logits))
    loads = torch.stack(
        [(idx.flatten() == e).sum() for idx in [torch.cat(constraint.topk_idx)] for e in range(NUM_EXPERTS)]
    )
    shares = torch.cat(out.router_logits).float().softmax(-1).sum(0)
    ours = NUM_EXPERTS * (loads / num_rows * shares / num_rows).sum()
    torch.testing.assert_close(out.aux_loss, ours, rtol=1e-5, atol=0)
    assert abs(float(out.aux_loss - theirs)) > 1e-4 * float(theirs)  # ten times the tolerance above
    plain = model(ids, labels=ids)
    torch.testing.assert_close(out.loss, plain.loss + coefficient * ours, rtol=1e-5, atol=0)


class Wrapper(torch.nn.Module):
    """As peft wraps a model: it calls forward(), past the hooks of the model itself."""

    def __init__(self, model):
        super().__init__()
        self.base_model = model

    def get_base_model(self):
        return self.base_model

    def forward(self, input_ids=None, attention_mask=None, **how):
        return self.base_model.forward(input_ids=input_ids, attention_mask=attention_mask, **how)


def test_a_model_that_peft_wraps_is_constrained_as_alone():
    model, ids = random_model("qwen2_moe"), random_ids()
    constraint = c2r.hf.constrain(model, random_lists(3))
    alone = model(ids, labels=ids, output_router_logits=True)
    constraint.remove()
    wrapper = Wrapper(model)
    assert c2r.hf.constrain(wrapper, random_lists(3)).model is model and model.config.top_t == 3
    out = wrapper(input_ids=ids, labels=ids, output_router_logits=True)
    assert torch.equal(out.loss, alone.loss) and torch.equal(out.aux_loss, alone.aux_loss)
    with pytest.raises(ValueError, match="constrained already"):
        c2r.hf.constrain(model, random_lists(3))


def test_padding_is_left_out_of_the_balance_loss():
    model, ids = random_model("olmoe"), random_ids((1, 9))
    c2r.hf.constrain(model, random_lists(4))
    alone = model(ids, labels=ids, output_router_logits=True)
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], 1)
    mask = (torch.arange(14) < 9).long().unsqueeze(0)
    out = model(padded, attention_mask=mask, labels=padded, output_router_logits=True)
    torch.testing.assert_close(out.aux_loss, alone.aux_loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_every_implementation_of_experts_gives_the_same(implementation):
    model, ids = random_model("qwen2_moe"), random_ids()
    model.set_experts_implementation("eager")
    c2r.hf.constrain(model, random_lists(4))
    expected = model(ids).logits
    model.set_experts_implementation(implementation)
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_a_compiled_model_is_constrained():
    model, ids, lists = random_model("qwen2_moe"), random_ids(), random_lists(4)
    constraint = c2r.hf.constrain(model, lists)
    expected = model(ids).logits
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids).logits, expected, rtol=1e-4, atol=1e-5)
    constraint.check()


def test_a_router_that_is_not_called_is_an_error():
    model = random_model("qwen2_moe")
    c2r.hf.constrain(model, random_lists(4))
    model.model.layers[1].mlp.forward = lambda x: x  # as a kernel that replaces the block
    with pytest.raises(RuntimeError, match="model.layers.1.mlp.gate was not called"):
        model(random_ids())


def obeys(constraint):
    for lists, idx in zip(constraint.lists, constraint.topk_idx, strict=True):
        for row in idx.tolist():
            assert set(row[1:]) <= set(lists[row[0]]), f"{row} does not obey {lists[row[0]]}"


def train(model, constraint, num_steps=20):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    losses = []
    for step in range(num_steps):
        out = model(random_ids((4, 12), seed=step % 3), labels=random_ids((4, 12), seed=step % 3))
        obeys(constraint)
        out.loss.backward()
        obeys(constraint)  # of the recomputation, too
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
    return losses


@pytest.mark.parametrize("is_reentrant", [False, True])
def test_training_under_gradient_checkpointing_obeys_the_lists_in_every_step(is_reentrant):
    model = random_model("qwen2_moe")
    constraint = c2r.hf.constrain(model, random_lists(4))
    model.gradient_checkpointing_enable({"use_reentrant": is_reentrant})
    losses = train(model, constraint)
    assert losses[-1] < losses[0]


def test_a_layer_whose_hook_is_gone_does_not_pass_as_constrained():
    model = random_model("qwen2_moe")
    constraint = c2r.hf.constrain(model, random_lists(4))
    seen = record(constraint)
    constraint._hooks[1].remove()
    with pytest.raises(RuntimeError, match="model.layers.1.mlp.gate was not called"):
        model(random_ids())
    constraint.topk_idx[1] = seen[1][2]
    with pytest.raises(AssertionError, match="does not obey"):
        obeys(constraint)


@pytest.mark.parametrize(
    "lists, top_t, says",
    [
        (random_lists(4)[:2], None, "lists of 2 layers, but 3 layers have experts"),
        (random_lists(2), None, r"model.layers.0.mlp.gate: top_t is 2, but must be in \[3, 2\]"),
        (random_lists(5), 6, r"top_t is 6, but must be in \[3, 5\]"),
        ([*random_lists(5)[:2], random_lists(5)[2][:7]], None, "model.layers.2.mlp.gate: there are lists of 7 experts"),
        ([*random_lists(5)[:2], [[*row[:4], 12] for row in random_lists(5)[2]]], None, "layers.2.mlp.gate: expert 0 lists expert 12"),
        ([*random_lists(5)[:2], [[*row[:4], row[0]] for row in random_lists(5)[2]]], None, "lists expert .* twice"),
        ([*random_lists(5)[:2], [[*row[:4], 1.5] for row in random_lists(5)[2]]], None, "are not rows of whole numbers"),
        (None, None, "no lists were given, and the model's config has no collaborative_list"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_are_refused(lists, top_t, says):
    with pytest.raises(ValueError, match=says):
        c2r.hf.constrain(random_model("qwen2_moe"), lists, top_t)


_GROUPED = {
    "vocab_size": 31, "hidden_size": 16, "intermediate_size": 16, "moe_intermediate_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
_LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "qk_nope_head_dim": 8}


@pytest.mark.parametrize(
    "make_config, says",
    [
        (lambda: transformers.DeepseekV2Config(**_GROUPED, **_LATENT), "DeepseekV2.* chooses within groups"),
        (lambda: transformers.DeepseekV3Config(**_GROUPED, **_LATENT), "DeepseekV3.* chooses within groups"),
        (lambda: transformers.Glm4MoeConfig(**_GROUPED, head_dim=8), "Glm4Moe.* chooses within groups"),
    ],
)
def test_families_that_choose_otherwise_are_refused_by_name(make_config, says):
    model = transformers.AutoModelForCausalLM.from_config(make_config())
    with pytest.raises(ValueError, match=f"{type(model).__name__} cannot be constrained: of its router {says}"):
        c2r.hf.constrain(model, [])


def test_routers_that_c2r_does_not_know_are_refused_by_name():
    class StrangeTopKRouter(torch.nn.Linear):
        top_k = 2

    model = random_model("olmoe")
    model.model.layers[1].mlp.gate = StrangeTopKRouter(32, NUM_EXPERTS)
    says = r"router StrangeTopKRouter \(model.layers.1.mlp.gate\) c2r does not know how it weighs experts"
    with pytest.raises(ValueError, match=says):
        c2r.hf.constrain(model, random_lists(4))
    with pytest.raises(ValueError, match="Linear has no router that c2r knows"):
        c2r.hf.constrain(torch.nn.Linear(2, 2), [])


def test_a_model_is_constrained_once():
    model = random_model("olmoe")
    c2r.hf.constrain(model, random_lists(4))
    with pytest.raises(ValueError, match="constrained already"):
        c2r.hf.constrain(model, random_lists(4))


@pytest.mark.parametrize("family", CONFIGS)
def test_a_permuted_model_computes_the_same(family):
    model, ids, lists = random_model(family), random_ids(), random_lists(4)
    constraint = c2r.hf.constrain(model, lists)
    expected = model(ids).logits
    with pytest.raises(ValueError, match="the model is constrained"):
        c2r.hf.permute(model, [torch.arange(NUM_EXPERTS).view(2, -1)] * NUM_LAYERS)
    constraint.remove()
    model.config.top_t, model.config.collaborative_list = 4, [[list(row) for row in layer] for layer in lists]
    slots = [
        torch.randperm(NUM_EXPERTS, generator=torch.Generator().manual_seed(layer)).view(3, -1)
        for layer in range(NUM_LAYERS)
    ]
    before = constraint.topk_idx
    c2r.hf.permute(model, slots)
    again = c2r.hf.constrain(model)
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    for layer, order in enumerate(slots):
        assert torch.equal(order.flatten()[again.topk_idx[layer]], before[layer])


def test_a_plan_with_replicas_is_no_permutation():
    model = random_model("olmoe")
    slots = [torch.arange(NUM_EXPERTS)] * 2 + [torch.cat([torch.arange(NUM_EXPERTS), torch.tensor([3])])]
    with pytest.raises(ValueError, match="model.layers.2.mlp.gate: the plan has 13 slots for 12 experts"):
        c2r.hf.permute(model, slots)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "the collaborator lists are not a list over layers"),
        ('{"collaborators": {"a": 1}}', "the collaborator lists are not a list over layers"),
        ('{"format": "c2r-plan"}', "the plan's layers are not a list of objects"),
        ('{"format": "c2r-plan", "layers": [3]}', "the plan's layers are not a list of objects"),
        ("{}", "has no collaborator lists"),
        ("[[[1]", "is not JSON"),
    ],
)
def test_a_file_without_lists_is_refused_by_its_name(text, message, tmp_path):
    path = tmp_path / "lists.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"lists.json: {message}"):
        c2r.hf.constrain(random_model("olmoe"), path)
