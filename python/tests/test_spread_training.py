"""Training with spread experts and the constraint: the losses of one process, the same bits on every run, and as many
rows as c2r.simulate() predicts of the trace of the same step."""

import os

import pytest
import torch
import torch.distributed as dist
from families import CONFIGS, NUM_EXPERTS, NUM_LAYERS, TOP_K, VOCABULARY, random_lists
from ranks import run_ranks

import c2r
import c2r.hf
import c2r.torch as ct

transformers = pytest.importorskip("transformers", minversion="5.23")

DEVICE = os.environ.get("C2R_TEST_DEVICE", "cpu")  # bench/gpu_training.py runs this on a GPU
HIDDEN, NUM_STEPS, NUM_CHUNKS, TOP_T = 32, 3, 2, 4
FAMILIES = ["qwen2_moe", "llama_moe"]
NUM_SEQUENCES, LENGTH = 8, 9  # of a step, over all ranks
CLUSTERS = {1: "1x1", 2: "1x2", 4: "2x2"}
# A loss is a mean of logarithms behind some 20 float32 sums of at most 64 products, whose roundings by 2^-24 add up like
# random ones: 20 * sqrt(64) * 2^-24.
TOLERANCE = 1e-5


def model_of(family):
    """Without LLaMA-MoE's noise and balance loss: both depend on which tokens share a process."""
    torch.manual_seed(0)
    config = CONFIGS[family]()
    config.gate_add_noise = config.gate_use_balance = False
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    for name, parameter in model.named_parameters():
        if ".mlp.gate." in name:
            torch.nn.init.normal_(parameter)
    return model


def sequences(step):
    """int64 [NUM_SEQUENCES, LENGTH]; sequence s is on rank s % ep_size, as c2r.simulate(homes="sequences") deals them."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, VOCABULARY, (NUM_SEQUENCES, LENGTH), generator=generator)


class Recorded:
    """What each layer's experts are given in a forward pass: [NUM_LAYERS] of [num_tokens, top_k]."""

    def __init__(self, model):
        self.topk_idx = [None] * NUM_LAYERS
        for at, layer in enumerate(model.model.layers):
            layer.mlp.experts.register_forward_pre_hook(lambda module, inputs, at=at: self._keep(at, inputs[1]))

    def _keep(self, at, topk_idx):
        self.topk_idx[at] = topk_idx.detach().clone()


def trace_of(choices, lengths):
    """choices: of each rank and layer, [num_tokens, top_k], sequences one after the other, of lengths[rank]. The trace
    of all, with sequences in the order in which they were dealt."""
    num_sequences = len(lengths[0])
    order = [(rank, at) for at in range(num_sequences) for rank in range(len(choices))]
    layers = []
    for layer in range(NUM_LAYERS):
        parts = [of_rank[layer].split(counts) for of_rank, counts in zip(choices, lengths, strict=True)]
        layers.append(torch.cat([parts[rank][at] for rank, at in order]).to(torch.int32).numpy())
    starts = torch.tensor([0, *(lengths[rank][at] for rank, at in order[:-1])]).cumsum(0).numpy()
    header = c2r.TraceHeader(num_experts=NUM_EXPERTS, top_k=TOP_K, layer_indices=list(range(NUM_LAYERS)))
    return c2r.Trace(header, layers, starts)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """By family: the folders of a constrained model, and of the same model permuted by a plan of each cluster."""
    pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module, which predicts")
    found = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        model = model_of(family)
        model.config.top_t, model.config.collaborative_list = TOP_T, random_lists(TOP_T)
        model.save_pretrained(folder / "contiguous")
        constraint, recorded = c2r.hf.constrain(model), Recorded(model)
        model(input_ids=sequences(0))
        trace = trace_of([recorded.topk_idx], [[LENGTH] * NUM_SEQUENCES])
        constraint.remove()
        for cluster in CLUSTERS.values():
            permuted = transformers.AutoModelForCausalLM.from_pretrained(folder / "contiguous", dtype=torch.float32)
            plan = c2r.plan(trace, cluster, max_imbalance=2.0, num_threads=1)
            plan.save(folder / f"{cluster}.json")
            c2r.hf.permute(permuted, plan)
            permuted.save_pretrained(folder / cluster)
        found[family] = folder
    return found


def spread_on_one_rank(model, implementation):
    """What transformers does with a DistributedConfig of several ranks, of which it makes nothing for one."""
    from torch.distributed.fsdp import fully_shard
    from transformers.distributed.expert_parallel import EpDispatchExpertsParallel

    mesh = dist.init_device_mesh(DEVICE, (1,))
    for layer in model.model.layers:
        EpDispatchExpertsParallel().install_forward(
            layer.mlp.experts, mesh, tp_mesh=mesh, ep_implementation=implementation
        )
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def load(folder, implementation=None):
    """A constrained model in training mode, sharded and with spread experts if an implementation is given."""
    from transformers.distributed.configuration_utils import DistributedConfig

    import c2r.hf.llama_moe

    config, ep_size = None, 1 if implementation is None else dist.get_world_size()
    if ep_size > 1:
        config = DistributedConfig(fsdp_size=ep_size, ep_size=ep_size, ep_implementation=implementation)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, distributed_config=config, local_files_only=True
    )
    model.to(DEVICE)
    c2r.hf.constrain(model)  # the lists of the config
    if implementation is not None and ep_size == 1:
        spread_on_one_rank(model, implementation)
    return model.train()


def train_in_a_loop(model, rank, ep_size):
    """This process's mean loss in each step. The traffic is that of the last step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = []
    for step in range(NUM_STEPS):
        ids = sequences(step)[rank::ep_size].to(DEVICE)
        ct.reset_traffic()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def train_by_the_trainer(model, rank, ep_size, folder):
    """The loss of each step, which the Trainer takes the mean of over ranks. The traffic is that of all steps."""
    arguments = transformers.TrainingArguments(
        output_dir=folder, max_steps=NUM_STEPS, per_device_train_batch_size=NUM_SEQUENCES // ep_size, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=1, optim="sgd", learning_rate=0.3,
        lr_scheduler_type="constant", seed=3,
    )  # fmt: skip
    rows = [{"input_ids": row, "labels": row} for step in range(NUM_STEPS) for row in sequences(step)]
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def traffic_by_step():
    """(rows, bytes) that this rank sent, by layer and step."""
    sent = {}
    for entry in ct.traffic():
        rows, num_bytes = sent.get((entry.layer, entry.step), (0, 0))
        sent[entry.layer, entry.step] = rows + entry.num_rows, num_bytes + entry.num_bytes
    return sent


def train_alone(rank, folder):
    """Losses of one process without c2r's exchange."""
    return train_in_a_loop(load(folder), 0, 1)


def train(rank, folder, implementation, num_runs, output):
    """Losses, traffic of the last step and choices of the last forward pass, after runs that have the same bits.

    output: a folder for the Trainer; None for a loop.
    """
    ep_size = dist.get_world_size()
    if output is not None and ep_size > 1:  # what torchrun says
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ep_size, "LOCAL_WORLD_SIZE": ep_size}
        os.environ.update({name: str(value) for name, value in names.items()})
    runs = []
    for _ in range(num_runs):
        c2r.hf.register(NUM_CHUNKS, ranks_per_node=min(ep_size, 2))
        model = load(folder, implementation)
        recorded = Recorded(model)
        if output is None:
            losses = train_in_a_loop(model, rank, ep_size)
        else:
            losses = train_by_the_trainer(model, rank, ep_size, output)
        runs.append((losses, [parameter.full_tensor() for parameter in model.parameters()]))
    for losses, parameters in runs[1:]:
        assert losses == runs[0][0]
        assert all(torch.equal(*pair) for pair in zip(parameters, runs[0][1], strict=True))
    return losses, traffic_by_step(), [topk_idx.cpu() for topk_idx in recorded.topk_idx]


def label_bytes(copies, ep_size, rows_sent, rows_received):
    """What a rank sends of ids, weights and counts in a layer: forward, backward; by docs/cost_model.md."""
    width = 1 if copies == "per-expert" else TOP_K
    forward = rows_sent * 4 * -(-3 * width // 2)
    if copies == "per-node":
        ranks_per_node = min(ep_size, 2)
        num_nodes = ep_size // ranks_per_node
        # With an even top_k, ids that go ahead to relays and weights that follow are as long as both together.
        counts = (num_nodes - 1) * (8 + 16 * ranks_per_node) + (ranks_per_node - 1) * 16
    else:
        counts = (ep_size - 1) * 16
    return forward + counts * NUM_CHUNKS, rows_received * 4 * width


def check_rows(results, predicted, copies):
    """Rows and bytes of every layer, rank and direction are what was predicted, and so are those beside the rows."""
    ep_size = len(results)
    for layer, counts in enumerate(predicted["counts"]["layers"]):
        row_bytes = 0
        for rank, (_, sent, _) in enumerate(results):

            def of(*steps, sent=sent, layer=layer):
                found = [sent.get((f"experts {layer}", step), (0, 0)) for step in steps]
                return sum(rows for rows, _ in found), sum(size for _, size in found)

            there, back = counts["sent"][rank], counts["received"][rank]
            assert of("dispatch") == of("combine_backward") == (there, there * HIDDEN * 4)
            assert of("combine") == of("dispatch_backward") == (back, back * HIDDEN * 4)
            assert (of("metadata", "counts")[1], of("metadata_backward")[1]) == label_bytes(
                copies, ep_size, there, back
            )
            row_bytes += of("dispatch")[1]
        assert row_bytes == counts["dispatch_wire_bytes"]
        assert ep_size == 1 or row_bytes > 0


def predict(folder, cluster, results, copies, is_placed, lengths=None):
    """The prediction, by the plan of the cluster, of the trace that was recorded in the last step.

    lengths: of the sequences of a rank, the same on each; all LENGTH if None.
    """
    plan = c2r.Plan.load(folder / f"{cluster}.json")
    choices = [topk_idx for _, _, topk_idx in results]
    if is_placed:  # experts have the numbers of their slots there
        orders = [torch.as_tensor(slots).flatten() for slots in plan.slots()]
        choices = [[order[idx] for order, idx in zip(orders, of_rank, strict=True)] for of_rank in choices]
    lengths = lengths or [LENGTH] * (NUM_SEQUENCES // len(results))
    trace = trace_of(choices, [lengths] * len(results))
    # A value has two bytes there, and four here.
    steps = c2r.simulate(plan, trace, copy_mode=copies, homes="sequences", hidden=2 * HIDDEN)
    name = "placement" if is_placed else "per-expert" if copies == "per-expert" else "deduplication"
    return next(step for step in steps if step["step"] == name)


VARIANTS = {
    "per-expert": ("c2r_per_expert", "per-expert", False),
    "per-rank": ("c2r", "per-rank", False),
    "per-node": ("c2r_per_node", "per-node", False),
    "placed": ("c2r", "per-rank", True),
    "placed per-node": ("c2r_per_node", "per-node", True),
}


@pytest.fixture(scope="module")
def alone(prepared):
    """Losses of one process, by family."""
    return {family: train_alone(0, prepared[family] / "contiguous") for family in FAMILIES}


def train_each(rank, runs):
    """train() of several models in one set of processes, which costs as much as starting them."""
    return [train(rank, folder, implementation, 2, None) for folder, implementation in runs]


@pytest.mark.parametrize("ep_size, variants", [(1, ["per-rank"]), (2, list(VARIANTS)[:4]), (4, list(VARIANTS))])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loop_has_the_losses_of_one_process_and_sends_the_predicted_rows(prepared, alone, family, ep_size, variants):
    folder, cluster = prepared[family], CLUSTERS[ep_size]
    runs = [
        (str(folder / (cluster if is_placed else "contiguous")), implementation)
        for implementation, _, is_placed in map(VARIANTS.get, variants)
    ]
    of_ranks = run_ranks(ep_size, train_each, runs, timeout_s=240)
    for results, variant in zip(zip(*of_ranks, strict=True), variants, strict=True):
        _, copies, is_placed = VARIANTS[variant]
        losses = torch.tensor([losses for losses, _, _ in results]).mean(0)
        torch.testing.assert_close(losses, torch.tensor(alone[family]), rtol=TOLERANCE, atol=0)
        check_rows(results, predict(folder, cluster, results, copies, is_placed), copies)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trainer_has_the_losses_of_one_process(prepared, family, tmp_path):
    folder = str(prepared[family] / "contiguous")
    expected = torch.tensor(train_by_the_trainer(load(folder), 0, 1, str(tmp_path)))
    assert len(expected) == NUM_STEPS
    for ep_size in (1, 2, 4):
        for losses, _, _ in run_ranks(ep_size, train, folder, "c2r", 2, str(tmp_path), timeout_s=180):
            torch.testing.assert_close(torch.tensor(losses), expected, rtol=TOLERANCE, atol=0)


LENGTHS = [LENGTH, 4, 7, 1]  # of the sequences of each of two ranks, padded to LENGTH


def padded_step(rank, folder, is_checkpointed):
    """A step on padded sequences: loss, traffic, and choices of what is no padding."""
    from c2r.hf.expert_parallel import leave_out_padding

    def loss_of(model, ids, lengths):
        mask = torch.arange(LENGTH) < torch.tensor(lengths).unsqueeze(1)
        return model(input_ids=ids, attention_mask=mask.long(), labels=torch.where(mask, ids, -100)).loss, mask

    ep_size = dist.get_world_size()
    expected, _ = loss_of(load(folder), sequences(0), [length for length in LENGTHS for _ in range(ep_size)])
    c2r.hf.register(NUM_CHUNKS)
    model = load(folder, "c2r")
    leave_out_padding(model)
    recorded = Recorded(model)
    if is_checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": ct.reuse_routing})
    ct.reset_traffic()
    loss, mask = loss_of(model, sequences(0)[rank::ep_size], LENGTHS)
    choices = [idx[mask.flatten()] for idx in recorded.topk_idx]
    loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total)
    torch.testing.assert_close(total / ep_size, expected.detach(), rtol=TOLERANCE, atol=0)
    return [], traffic_by_step(), choices


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_padding_is_not_sent(prepared, is_checkpointed):
    folder = prepared["qwen2_moe"]
    results = run_ranks(2, padded_step, str(folder / "contiguous"), is_checkpointed, timeout_s=180)
    if not is_checkpointed:  # a recomputation repeats what is sent
        check_rows(results, predict(folder, CLUSTERS[2], results, "per-rank", False, LENGTHS), "per-rank")
