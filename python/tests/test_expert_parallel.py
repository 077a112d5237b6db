"""Expert parallelism in transformers: against one process, with and without tensor parallelism and checkpointing."""

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from reference import copies_to

import c2r.torch as ct

transformers = pytest.importorskip("transformers", minversion="5.23")

NUM_EXPERTS, TOP_K, NUM_LAYERS, HIDDEN, VOCABULARY = 8, 3, 2, 32, 61


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Qwen2-MoE whose router is decided."""
    torch.manual_seed(0)
    config = transformers.Qwen2MoeConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=24, num_hidden_layers=NUM_LAYERS,
        num_attention_heads=2, num_key_value_heads=2, num_experts=NUM_EXPERTS, num_experts_per_tok=TOP_K,
        moe_intermediate_size=16, shared_expert_intermediate_size=24,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.mlp.gate.weight)
    path = tmp_path_factory.mktemp("qwen")
    model.save_pretrained(path)
    return str(path)


def load(folder, **distributed):
    from transformers.distributed.configuration_utils import DistributedConfig

    config = DistributedConfig(**distributed) if distributed else None
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, distributed_config=config, local_files_only=True
    )


def loss_of(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")


def record_choices(model):
    """The topk_idx of each layer's router, as it is called."""
    choices = []
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda module, inputs, output: choices.append(output[2]))
    return choices


def train_step(rank, folder, sizes, implementation, num_chunks, is_checkpointed):
    from c2r.hf.expert_parallel import register

    register(num_chunks)
    generator, tp_size = torch.Generator().manual_seed(5), sizes["tp_size"]
    shapes = [(2, 7), (1, 5), (1, 4), (3, 3)][: sizes["fsdp_size"]]
    batches = [torch.randint(0, VOCABULARY, shape, generator=generator) for shape in shapes]
    ids = batches[rank // tp_size]

    single = load(folder)
    expected = [single(batch).logits for batch in batches]
    sum(loss_of(*pair) for pair in zip(expected, batches)).backward()

    model = load(folder, ep_implementation=implementation, **sizes)
    if is_checkpointed:
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": ct.reuse_routing})
    choices = record_choices(model)
    ct.reset_traffic()
    logits = model(ids).logits
    sent = {}
    for entry in ct.traffic():
        sent[entry.layer, entry.step, entry.peer] = entry.num_rows, entry.num_bytes
    loss_of(logits, ids).backward()
    # float32, two layers, sums of at most some hundred products
    torch.testing.assert_close(logits, expected[rank // tp_size], rtol=1e-4, atol=1e-5)
    compare_gradients(model, single, 1 / sizes["fsdp_size"])
    return [choice.clone() for choice in choices[:NUM_LAYERS]], sent


def compare_gradients(model, single, factor):
    """Every gradient is that of one process times `factor`, FSDP's mean over ranks with other batches."""
    theirs = dict(single.named_parameters())
    for name, parameter in model.named_parameters():
        reference = theirs[name].grad * factor
        # float32 sums over some hundred products, in another order
        close = {"rtol": 1e-4, "atol": 1e-5 * float(reference.abs().max())}
        torch.testing.assert_close(
            parameter.grad.full_tensor(), reference, **close, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    "implementation, fsdp_size, tp_size, ep_size, num_chunks, is_checkpointed",
    [
        ("c2r", 2, 1, 2, 1, False),
        ("c2r_per_expert", 2, 1, 2, 2, False),
        ("c2r", 2, 1, 2, 2, True),
        ("c2r", 2, 2, 4, 1, False),
        ("c2r", 4, 1, 2, 1, False),  # two ranks hold each expert, for the tokens of their own group
    ],
)
def test_a_training_step_equals_one_process_and_sends_what_is_counted(
    folder, implementation, fsdp_size, tp_size, ep_size, num_chunks, is_checkpointed
):
    sizes = {"fsdp_size": fsdp_size, "tp_size": tp_size, "ep_size": ep_size}
    results = run_ranks(
        fsdp_size * tp_size, train_step, folder, sizes, implementation, num_chunks, is_checkpointed, timeout_s=180
    )
    copies = {"c2r": "per-rank", "c2r_per_expert": "per-expert"}[implementation]
    for layer in range(NUM_LAYERS):
        for rank, (choices, sent) in enumerate(results):
            idx = choices[layer].view(-1, TOP_K).chunk(tp_size)[rank % tp_size]
            rank_of_expert = ct.contiguous(NUM_EXPERTS, ep_size) + rank // ep_size * ep_size
            for (_, peer), rows in copies_to(idx, rank_of_expert, rank, copies).items():
                assert sent[f"experts {layer}", "dispatch", peer] == (rows, rows * HIDDEN * 4)
                assert results[peer][1][f"experts {layer}", "combine", rank] == (rows, rows * HIDDEN * 4)


def train(rank, folder, saved):
    """Losses of three steps, twice; then every rank's part is saved."""
    from c2r.hf.expert_parallel import register

    register(num_chunks=2)
    ep_size = dist.get_world_size()
    steps = torch.randint(0, VOCABULARY, (3, 2 * ep_size, 6), generator=torch.Generator().manual_seed(9))

    def losses_of(model, rows, scale):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        losses = []
        for ids in steps:
            loss = loss_of(model(ids[rows]).logits, ids[rows]) * scale
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())
        return torch.stack(losses)

    num_targets = steps[0][:, 1:].numel()
    own = slice(2 * rank, 2 * rank + 2)
    runs = []
    for _ in range(2):
        model = load(folder, fsdp_size=ep_size, ep_size=ep_size, ep_implementation="c2r")
        runs.append(losses_of(model, own, ep_size / num_targets))  # FSDP takes the mean over ranks
    assert torch.equal(*runs)
    total = runs[0].clone()
    dist.all_reduce(total)

    single = load(folder)
    torch.testing.assert_close(total / ep_size, losses_of(single, slice(None), 1 / num_targets), rtol=1e-5, atol=1e-5)
    model.save_pretrained(saved)
    dist.barrier()
    for name, parameter in load(saved).named_parameters():
        reference = single.get_parameter(name)
        torch.testing.assert_close(parameter, reference, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_training_has_the_losses_of_one_process_and_saves_every_expert(folder, tmp_path):
    run_ranks(2, train, folder, str(tmp_path / "saved"))


def save_sharded(rank, folder, saved):
    """A checkpoint that each rank writes its part of, read into another arrangement and into a whole model."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    from c2r.hf.expert_parallel import register

    register()
    expected = load(folder).state_dict()
    model = load(folder, fsdp_size=4, ep_size=2, ep_implementation="c2r")
    checkpoint.save(get_model_state_dict(model), checkpoint_id=saved)
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    other = load(folder, fsdp_size=4, ep_size=4, ep_implementation="c2r")
    single = load(folder)
    for changed in (other, single):
        with torch.no_grad():
            for parameter in changed.parameters():
                parameter.zero_()
        state = get_model_state_dict(changed)
        checkpoint.load(state, checkpoint_id=saved)
    for name, reference in expected.items():
        assert torch.equal(single.state_dict()[name], reference), name
        assert torch.equal(other.state_dict()[name].full_tensor(), reference), name
        assert rank > 0 or torch.equal(whole[name], reference), name


def test_full_and_sharded_state_hold_every_expert(folder, tmp_path):
    run_ranks(4, save_sharded, folder, str(tmp_path / "sharded"))


def recomputing(rank, folder):
    from c2r.hf.expert_parallel import register

    register()
    ids = torch.randint(0, VOCABULARY, (1, 6), generator=torch.Generator().manual_seed(rank))
    model = load(folder, fsdp_size=2, ep_size=2, ep_implementation="c2r").train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    with pytest.raises(RuntimeError, match="pass use_reentrant=False and context_fn=c2r.torch.reuse_routing"):
        model(ids).logits.sum().backward()

    model = load(folder, fsdp_size=2, ep_size=2, ep_implementation="c2r").train()
    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": ct.reuse_routing})
    calls = []

    def fickle(module, inputs, output):
        calls.append(1)
        logits, weights, idx = output
        return (logits, weights, idx if len(calls) == 1 else (idx + 1) % NUM_EXPERTS)

    model.model.layers[1].mlp.gate.register_forward_hook(fickle)
    with pytest.raises(RuntimeError, match="^experts 3: a recomputed router chose other experts than in the forward"):
        model(ids).logits.sum().backward()


def test_a_recomputation_that_would_hang_or_be_wrong_is_refused(folder):
    run_ranks(2, recomputing, folder)


def recomputing_what_was_chosen(rank, folder):
    """A constrained router whose logits are others when they are recomputed: the choice and what is sent stay."""
    import c2r.hf
    from c2r.hf.expert_parallel import register

    register(num_chunks=2)
    ids = torch.randint(0, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(rank))
    model = load(folder, fsdp_size=2, ep_size=2, ep_implementation="c2r").train()
    lists = [[[e for e in range(NUM_EXPERTS) if e != expert][:4] for expert in range(NUM_EXPERTS)]] * NUM_LAYERS
    c2r.hf.constrain(model, lists)
    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": ct.reuse_routing})
    choices = record_choices(model)
    calls = []

    def other_logits(module, inputs):
        calls.append(1)
        return (inputs[0] if len(calls) <= NUM_LAYERS else -inputs[0],)

    for layer in model.model.layers:
        layer.mlp.gate.register_forward_pre_hook(other_logits)
    loss_of(model(ids).logits, ids).backward()
    assert len(choices) == 2 * NUM_LAYERS
    for forward, again in zip(choices[:NUM_LAYERS], reversed(choices[NUM_LAYERS:]), strict=True):
        assert torch.equal(forward, again)


def test_a_recomputation_keeps_the_choice_of_a_constrained_router(folder):
    run_ranks(2, recomputing_what_was_chosen, folder)
