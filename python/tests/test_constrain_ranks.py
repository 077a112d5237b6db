"""The constraint on several ranks: FSDP2, transformers' own sharding, DDP, the Trainer, and expert parallelism."""

import pytest
import torch
import torch.distributed as dist
from families import NUM_EXPERTS, NUM_LAYERS, VOCABULARY, random_lists, random_model
from ranks import run_ranks

import c2r.hf
import c2r.torch as ct

transformers = pytest.importorskip("transformers", minversion="5.23")

NUM_STEPS, TOP_T = 20, 4
FAMILIES = ["qwen2_moe", "llama_moe"]


def batch(step, rank):
    generator = torch.Generator().manual_seed(10 * (step % 3) + rank)
    return torch.randint(0, VOCABULARY, (2, 9), generator=generator)


class Choices:
    """What every layer's experts get, in forward passes and recomputations, held against the lists."""

    def __init__(self, model, lists):
        self.num_checked = [0] * NUM_LAYERS
        for layer, block in enumerate(model.model.layers):
            block.mlp.experts.register_forward_pre_hook(
                lambda module, inputs, layer=layer: self._check(layer, lists[layer], inputs[1])
            )

    def _check(self, layer, lists, topk_idx):
        for row in topk_idx.tolist():
            assert set(row[1:]) <= set(lists[row[0]]), f"layer {layer}: {row} does not obey {lists[row[0]]}"
        self.num_checked[layer] += len(topk_idx)


def balance_by_definition(out, topk_idx):
    """The balance loss of transformers' families, of these choices."""
    counts = torch.bincount(torch.cat(topk_idx).flatten(), minlength=NUM_EXPERTS)
    logits = torch.cat(out.router_logits).float()
    return NUM_EXPERTS * (counts / len(logits) * logits.softmax(-1).mean(0)).sum()


def steps(rank, model, constraint, family, num_steps=NUM_STEPS):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    losses = []
    for step in range(num_steps):
        ids = batch(step, rank)
        out = model(input_ids=ids, labels=ids, output_router_logits=True)
        if family != "llama_moe":
            expected = balance_by_definition(out, constraint.topk_idx)
            torch.testing.assert_close(out.aux_loss, expected, rtol=1e-5, atol=0)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
    return losses


def make(kind, family, folder):
    if kind == "distributed_config":
        from transformers.distributed.configuration_utils import DistributedConfig

        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, distributed_config=DistributedConfig(fsdp_size=2), local_files_only=True
        )
    return random_model(family)


def train(rank, kind, family, folder, layer_without_hook):
    lists = random_lists(TOP_T)
    model = make(kind, family, folder)
    constraint = c2r.hf.constrain(model, lists)
    choices = Choices(model, lists)
    if layer_without_hook is not None:
        constraint._hooks[layer_without_hook].remove()
        constraint.check = lambda: None
        constraint.topk_idx[layer_without_hook] = torch.zeros(1, 1, dtype=torch.long)
    trained = model
    if kind != "ddp":
        model.activation_checkpointing_enable({"use_reentrant": False})
    if kind == "fully_shard":
        from torch.distributed.fsdp import fully_shard

        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
    elif kind == "ddp":
        trained = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    losses = steps(rank, trained, constraint, family)
    assert losses[-1] < losses[0]
    return choices.num_checked


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for family in FAMILIES:
        found[family] = str(tmp_path_factory.mktemp(family))
        random_model(family).save_pretrained(found[family])
    return found


@pytest.mark.parametrize("kind", ["fully_shard", "distributed_config", "ddp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_choice_of_every_step_obeys_the_lists(folders, kind, family):
    num_forward = NUM_STEPS * batch(0, 0).numel()
    expected = num_forward if kind == "ddp" else 2 * num_forward  # recomputed once
    for num_checked in run_ranks(2, train, kind, family, folders[family], None, timeout_s=240):
        assert num_checked == [expected] * NUM_LAYERS


def test_a_layer_whose_hook_is_off_does_not_pass(folders):
    with pytest.raises(AssertionError, match=r"layer 1: \[.*\] does not obey"):
        run_ranks(2, train, "fully_shard", "qwen2_moe", folders["qwen2_moe"], 1, timeout_s=240)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trainer_trains_with_the_constraint(family, tmp_path):
    lists = random_lists(TOP_T)
    model = random_model(family)
    c2r.hf.constrain(model, lists)
    choices = Choices(model, lists)
    rows = [{"input_ids": row, "labels": row} for step in range(3) for row in batch(step, 0)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=2, use_cpu=True, report_to=[],
        save_strategy="no", gradient_checkpointing=True, disable_tqdm=True,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in model.parameters()]
    result = transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert result.global_step == 3
    assert choices.num_checked == [2 * 3 * batch(0, 0).numel()] * NUM_LAYERS
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def losses_of(model, rows, num_targets, scale):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = []
    for ids in rows:
        logits = model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
        loss = loss * scale / num_targets
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def train_with_experts_spread(rank, folder):
    from transformers.distributed.configuration_utils import DistributedConfig

    c2r.hf.register()
    lists = random_lists(TOP_T)
    batches = [torch.cat([batch(step, 0), batch(step, 1)]) for step in range(3)]
    num_targets = batches[0][:, 1:].numel()

    def load(config):
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, distributed_config=config, local_files_only=True
        ).eval()  # LLaMA-MoE's noise is drawn for other tokens on each rank

    single = load(None)
    c2r.hf.constrain(single, lists)
    expected = losses_of(single, batches, num_targets, 1)
    model = load(DistributedConfig(fsdp_size=2, ep_size=2, ep_implementation="c2r"))
    c2r.hf.constrain(model, lists)
    choices = Choices(model, lists)
    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": ct.reuse_routing})
    own = [ids[2 * rank : 2 * rank + 2] for ids in batches]
    total = losses_of(model, own, num_targets, 2)  # FSDP takes the mean over ranks
    dist.all_reduce(total)
    # float32 sums of some thousand products in another order, through three steps
    torch.testing.assert_close(total / 2, expected, rtol=1e-5, atol=1e-5)
    assert min(choices.num_checked) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_spread_experts_give_the_losses_of_one_process(folders, family):
    run_ranks(2, train_with_experts_spread, folders[family], timeout_s=180)
