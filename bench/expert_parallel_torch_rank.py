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


class Layer:
    """The model of one layer, sharded; its router returns recorded choices."""

    def __init__(self, job, rank, size, device):
        import transformers
        from transformers.distributed.configuration_utils import DistributedConfig

        self.switch = register_switch(job["ranks_per_node"], load_others(job["others"]))
        # Without FSDP, whose work is the same for all and which is half of a step on a CPU.
        sizes = {"fsdp_size": size, "ep_size": size, "fsdp_plan": {}}
        config = DistributedConfig(**sizes, ep_implementation="switch") if size > 1 else None
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            job["model"], dtype=torch.bfloat16, distributed_config=config, local_files_only=True
        )
        self.model.to(device).train()
        if size == 1:
            from transformers.distributed.expert_parallel import EpDispatchExpertsParallel

            mesh = dist.init_device_mesh(device.type, (1,))
            EpDispatchExpertsParallel().install_forward(
                self.model.model.layers[0].mlp.experts, mesh, tp_mesh=mesh, ep_implementation="switch"
            )
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
    for at in range(4):
        for chunks in candidates:
            trials[chunks].append(timed(layer, mode, {**first, "chunks": chunks}, at))
    best = min(candidates, key=lambda chunks: statistics.median(trials[chunks][1:]))
    return [{**variant, "chunks": variant["chunks"] or best} for variant in variants]


def log(text):
    if dist.get_rank() == 0:
        print(text, flush=True)


def measure_cell(job, cell, layer):
    """One mode at one point: links are set by what the baseline computes when they are fast."""
    mode, baseline = cell["mode"], cell["variants"][0]
    set_links(job, job["fast_mbit"], job["fast_mbit"])
    timed(layer, mode, baseline, 0)
    free = [timed(layer, mode, baseline, at) for at in range(5)]
    busiest = max(bytes_sent(layer, mode, baseline))
    computes = statistics.median(free)
    # cell["slower"]: even links over these, 0 for links without limit.
    mbit = max(1, round(8e-6 * busiest / computes / cell["slower"])) if cell["slower"] else job["fast_mbit"]
    # A node's ranks share its link; it is slower by this factor than all of theirs.
    node_mbit = max(1, round(mbit / job["node_slower"])) if job["node_slower"] else job["fast_mbit"]
    set_links(job, mbit, node_mbit)
    variants = choose_chunks(layer, mode, cell["variants"], job["chunks"])
    seconds = rounds_of(layer, mode, variants, cell["rounds"])
    set_links(job, job["fast_mbit"], job["fast_mbit"])
    free += [timed(layer, mode, baseline, at) for at in range(3)]
    sent = {variant["name"]: bytes_sent(layer, mode, variant) for variant in variants}
    return {
        "cell": cell, "problem": job["problem"], "tokens": job["tokens"], "device": str(layer.device),
        "ranks": dist.get_world_size(), "mbit": mbit, "node_mbit": node_mbit, "variants": variants,
        "baseline_free_s": free, "seconds": seconds, "bytes_sent": sent,
    }  # fmt: skip


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
    known = {variant["name"]: variant for cell in job["cells"] for variant in cell["variants"]}
    check(layer, [{**variant, "chunks": variant["chunks"] or 2} for variant in known.values()])
    for at, cell in enumerate(job["cells"]):
        result = pathlib.Path(cell["result"])
        start = time.monotonic()
        measured = measure_cell(job, cell, layer)
        if rank == 0:
            result.with_suffix(".part").write_text(json.dumps(measured))
            result.with_suffix(".part").rename(result)
        log(f"{at + 1}/{len(job['cells'])} {result.name}: {time.monotonic() - start:.0f} s")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
