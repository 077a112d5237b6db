"""One rank of bench/expert_parallel_torch.py: times exchanges of one layer in turns, and writes each result at once.

Started by that script on every host of the cluster; argument: the JSON of a job.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist

ROOT = pathlib.Path(__file__).resolve().parent.parent


def rank_and_size():
    """As mpirun says, or torchrun."""
    if "OMPI_COMM_WORLD_RANK" in os.environ:
        return int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"])
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def register_switch(ranks_per_node, others):
    """An ep_implementation that is one of several by name, over the same experts: what is compared is the exchange."""
    from c2r.hf.expert_parallel import register
    from transformers.distributed.expert_parallel import AllToAllEP, EPImplementation, EPImplementationInterface

    class Switch(EPImplementation):
        current = ("all_to_all", 1)  # name and chunks

        def __init__(self, experts, ep_mesh, tp_mesh):
            super().__init__(experts, ep_mesh, tp_mesh)
            self.made, self.arguments = {}, (experts, ep_mesh, tp_mesh)
            # In this order on every rank: groups of nodes are made collectively.
            for name in ("c2r", "c2r_per_expert", *(["c2r_per_node"] if ranks_per_node else [])):
                self.made[name] = EPImplementationInterface()[name](*self.arguments)
            self.made["all_to_all"] = AllToAllEP(*self.arguments)
            self.made.update({name: make(*self.arguments) for name, make in others.items()})

        def __call__(self, *tensors):
            name, num_chunks = self.current
            chosen = self.made[name]
            chosen.num_chunks = num_chunks
            return chosen(*tensors)

    register(ranks_per_node=ranks_per_node)
    EPImplementationInterface.register("switch", Switch)
    return Switch


def load_others(path):
    """Implementations from a file of one's own: its IMPLEMENTATIONS is a dict of names and classes."""
    if path is None:
        return {}
    import importlib.util

    spec = importlib.util.spec_from_file_location("others", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.IMPLEMENTATIONS


def keep_own_experts(experts, rank, size):
    """Cuts a module of transformers' experts down to those of this rank, contiguous and equally many on each."""
    num_local = experts.num_experts // size
    for name, matrices in list(experts.named_parameters(recurse=False)):
        own = matrices.detach()[rank * num_local : (rank + 1) * num_local].clone()
        setattr(experts, name, torch.nn.Parameter(own))
    experts.num_experts, experts._is_expert_parallel = num_local, True
    return experts


class Layer:
    """The model of one layer with this rank's experts; its router returns recorded choices."""

    def __init__(self, job, rank, size, device):
        import transformers
        from transformers.distributed.expert_parallel import EpDispatchExpertsParallel

        self.switch = register_switch(job["ranks_per_node"], load_others(job["others"]))
        # Not by a DistributedConfig: that also shards everything but the experts by FSDP, whatever its fsdp_plan, and
        # weights would travel over the same links as tokens.
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            job["model"], dtype=torch.bfloat16, local_files_only=True
        )
        mesh = dist.init_device_mesh(device.type, (size, 1), mesh_dim_names=("ep", "tp"))
        experts = keep_own_experts(self.model.model.layers[0].mlp.experts, rank, size)
        EpDispatchExpertsParallel().install_forward(experts, mesh["ep"], tp_mesh=mesh["tp"], ep_implementation="switch")
        self.model.to(device).train()
        self.routings = torch.load(job["routings"])  # by name: int64 [num_batches, num_tokens of all ranks, top_k]
        self.rank, self.device, self.tokens = rank, device, job["tokens"]
        self.hidden = self.model.config.hidden_size
        self.model.model.layers[0].mlp.gate.register_forward_hook(self._recorded)
        self.idx = None

    def _recorded(self, module, inputs, output):
        logits = output[0]
        weights = logits.float().softmax(-1).gather(1, self.idx).to(logits.dtype)
        return logits, weights, self.idx

    def prepare(self, variant, batch):
        """Chooses exchange, routing and input."""
        self.switch.current = variant["implementation"], variant["chunks"]
        routing = self.routings[variant["routing"]]
        own = slice(self.rank * self.tokens, (self.rank + 1) * self.tokens)
        self.idx = routing[batch % len(routing), own].to(self.device)
        generator = torch.Generator().manual_seed(1000 * batch + self.rank)
        x = torch.randn(1, self.tokens, self.hidden, generator=generator).to(self.device, torch.bfloat16)
        self.x = x.requires_grad_()
        self.model.zero_grad(set_to_none=True)

    def run(self, mode):
        """Returns the output and, in training, the gradient of x: what variants must agree on."""
        if mode == "forward":
            with torch.no_grad():
                return self.model(inputs_embeds=self.x, use_cache=False).logits, None
        out = self.model(inputs_embeds=self.x, use_cache=False).logits
        out.float().square().mean().backward()
        return out.detach(), self.x.grad


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(layer, mode, variant, batch):
    """Seconds of the slowest rank."""
    layer.prepare(variant, batch)
    dist.barrier()
    synchronize(layer.device)
    start = time.perf_counter()
    layer.run(mode)
    synchronize(layer.device)
    seconds = torch.tensor(time.perf_counter() - start, device=layer.device)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    return float(seconds)


def check(layer, variants):
    """Every variant computes what the baseline does for its routing, within bfloat16's roundings."""
    expected = {}
    for variant in sorted(variants, key=lambda variant: variant["implementation"] != "all_to_all"):
        routing = variant["routing"]
        if routing not in expected:
            layer.prepare({**variant, "implementation": "all_to_all", "chunks": 1}, 0)
            expected[routing] = layer.run("train")
        layer.prepare(variant, 0)
        # Sums of some thousand products, rounded in another order: a few roundings by 2^-9 each.
        for ours, reference in zip(layer.run("train"), expected[routing]):
            error = float((ours - reference).float().norm() / reference.float().norm())
            if not error < 2**-5:
                raise SystemExit(f"{variant['name']}: differs from all_to_all by {error:.3f} of its norm")


def bytes_sent(layer, mode, variant):
    """Of each rank, what one run sends: c2r counts it; of all_to_all it is what c2r_per_expert sends of rows."""
    import c2r.torch as ct

    is_baseline = variant["implementation"] == "all_to_all"
    counted = {**variant, "implementation": "c2r_per_expert"} if is_baseline else variant
    if not counted["implementation"].startswith("c2r"):
        return None
    layer.prepare(counted, 0)
    ct.reset_traffic()
    layer.run(mode)
    rows = sum(sent.num_bytes for sent in ct.traffic() if not is_baseline or "metadata" not in sent.step)
    received = torch.zeros(dist.get_world_size(), dtype=torch.long, device=layer.device)
    received[layer.rank] = rows
    dist.all_reduce(received)
    return received.tolist()


def set_links(job, mbit, node_mbit):
    """All ranks wait until the links have the speed."""
    dist.barrier()
    if job["cluster"] and dist.get_rank() == 0:
        command = [ROOT / "tools" / "cluster.sh", "limit", "--link", mbit, "--node", node_mbit]
        subprocess.run([str(word) for word in command], check=True, env={**os.environ, "C2R_CLUSTER": job["cluster"]})
    dist.barrier()


def rounds_of(layer, mode, variants, num_rounds):
    """By name, seconds of each round; every round runs all of them, in the other direction each time."""
    seconds = {variant["name"]: [] for variant in variants}
    for at in range(num_rounds):
        for variant in variants if at % 2 else reversed(variants):
            seconds[variant["name"]].append(timed(layer, mode, variant, at))
    return seconds


def choose_chunks(layer, mode, variants, candidates):
    """Variants that leave the number of chunks open get that which is best for the first of them in a few rounds."""
    first = next((variant for variant in variants if variant["chunks"] is None), None)
    if first is None:
        return variants
    trials = {chunks: [] for chunks in candidates}
    for at in range(3):
        for chunks in candidates:
            trials[chunks].append(timed(layer, mode, {**first, "chunks": chunks}, at))
    best = min(candidates, key=lambda chunks: statistics.median(trials[chunks]))
    return [{**variant, "chunks": variant["chunks"] or best} for variant in variants]


def log(text):
    if dist.get_rank() == 0:
        print(text, flush=True)


def next_mbit(mbit, seconds, free):
    """The link speed at which a step that takes `free` seconds on links without limit, and `seconds` at mbit, would
    communicate for half of its time: its communication takes a time in proportion to 1 / mbit."""
    return max(1, round(mbit * min(max(seconds / free - 1, 0.1), 10)))


def choose_links(job, cell, layer):
    """Mbit/s of a rank's link. "even": until the baseline communicates for half of its time, as measured."""
    mode, baseline, fast = cell["mode"], cell["variants"][0], job["fast_mbit"]

    def step_s(mbit):
        set_links(job, mbit, fast if mbit == fast else node_mbit_of(job, mbit))
        timed(layer, mode, baseline, 0)  # TCP still sends at the pace of the former links
        return statistics.median(timed(layer, mode, baseline, at) for at in range(3))

    step_s(fast)  # the first steps are slow: memory is fresh
    free = step_s(fast)
    # What a rank computes in a second, over FLOP per byte. Links without limit for a cell without a number.
    flop_per_s = cell["even_flop_per_byte"] * max(bytes_sent(layer, mode, baseline)) / free
    if cell["flop_per_byte"] == 0:
        return fast, flop_per_s
    mbit = max(1, round(8e-6 * flop_per_s / (cell["flop_per_byte"] or cell["even_flop_per_byte"])))
    for _ in range(2 if cell["flop_per_byte"] is None else 0):
        mbit = next_mbit(mbit, step_s(mbit), step_s(fast))
    return mbit, flop_per_s


def node_mbit_of(job, mbit):
    """A node's ranks share its link; it is slower by a factor than one of theirs."""
    return max(1, round(mbit / job["node_slower"])) if job["node_slower"] else job["fast_mbit"]


def measure_group(job, cell, layer, result, variants):
    """The baseline and some variants in turns, after a check of their results and times on links without limit."""
    mode, fast = cell["mode"], job["fast_mbit"]
    set_links(job, fast, fast)
    check(layer, variants)  # which warms up, too
    before = rounds_of(layer, mode, variants[:2], 3)
    set_links(job, result["mbit"], result["node_mbit"])
    seconds = rounds_of(layer, mode, variants, cell["rounds"])
    set_links(job, fast, fast)
    after = rounds_of(layer, mode, variants[:2], 2)
    return {
        "variants": variants, "free_s": {name: before[name] + after[name] for name in before}, "seconds": seconds,
        "bytes_sent": {variant["name"]: bytes_sent(layer, mode, variant) for variant in variants},
    }  # fmt: skip


def begin_cell(job, cell, layer):
    """Chooses what all groups of a cell share: the links and the number of chunks."""
    mbit, flop_per_s = choose_links(job, cell, layer)
    result = {
        "cell": cell, "problem": job["problem"], "tokens": job["tokens"], "device": str(layer.device),
        "ranks": dist.get_world_size(), "mbit": mbit, "node_mbit": node_mbit_of(job, mbit), "groups": [],
        "flop_per_byte": flop_per_s / (mbit * 1e6 / 8),
    }  # fmt: skip
    set_links(job, mbit, result["node_mbit"])
    result["variants"] = choose_chunks(layer, cell["mode"], cell["variants"], job["chunks"])
    return result


def save(path, result):
    if dist.get_rank() == 0:
        path.with_suffix(".part").write_text(json.dumps(result))
        path.with_suffix(".part").rename(path)
    dist.barrier()


def is_over(job, seconds):
    """Whether what takes this long would end after the time that the job has; rank 0 decides."""
    over = torch.tensor(float(job["end"] is not None and time.time() + seconds > job["end"]))
    dist.broadcast(over, 0)
    return bool(over)


def measure_cell(job, cell, layer):
    """One mode at one point, with what its file lacks. False: the time is over."""
    path = pathlib.Path(cell["result"])
    result = json.loads(path.read_text()) if path.exists() else begin_cell(job, cell, layer)
    known = {variant["name"] for variant in result["variants"]}
    chunks = result["variants"][1]["chunks"]
    new = [variant for variant in cell["variants"] if variant["name"] not in known]
    result["variants"] += [{**variant, "chunks": variant["chunks"] or chunks} for variant in new]
    save(path, result)
    baseline, *others = result["variants"]
    measured = {variant["name"] for group in result["groups"] for variant in group["variants"]}
    missing = [variant for variant in others if variant["name"] not in measured]
    lasted = 0.0
    for first in range(0, len(missing), job["at_a_time"]):
        if is_over(job, lasted):
            return False
        start = time.monotonic()
        group = [baseline, *missing[first : first + job["at_a_time"]]]
        result["groups"].append(measure_group(job, cell, layer, result, group))
        save(path, result)
        lasted = time.monotonic() - start
        log(f"{path.name}: {', '.join(variant['name'] for variant in group)}: {lasted:.0f} s")
    return True


def main():
    job = json.loads(pathlib.Path(sys.argv[1]).read_text())
    rank, size = rank_and_size()
    torch.set_num_threads(job["threads"])
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0" if job["cluster"] else "lo"
    dist.init_process_group("gloo", init_method=f"file://{job['store']}", rank=rank, world_size=size)
    device = torch.device(job["device"])
    if device.type == "cuda":
        os.environ["LOCAL_RANK"] = "0"  # one device for all
        torch.cuda.set_device(0)
    layer = Layer(job, rank, size, device)
    for cell in job["cells"]:
        if not measure_cell(job, cell, layer):
            log("the time is over; what is missing is measured by the next run")
            break
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
