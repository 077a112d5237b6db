"""Runs a function on several ranks, each a process with gloo."""

import datetime
import multiprocessing
import os
import pickle
import queue
import tempfile
import time
import traceback

import torch
import torch.distributed as dist

# A server that has imported PyTorch once and forks: a rank starts in milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict", "reference", "c2r.torch",
        "transformers.models.qwen2_moe.modeling_qwen2_moe", "transformers.trainer", "c2r.hf.llama_moe",
        "c2r.hf.expert_parallel",
    ]
)  # fmt: skip


def _run(rank: int, ep_size: int, store: str, results, function, arguments) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=ep_size, timeout=datetime.timedelta(seconds=30)
        )
        # Pickled here: the queue's own pickler would share the memory of tensors with a process that has ended.
        results.put((rank, None, pickle.dumps(function(rank, *arguments))))
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001 - pytest's failures are no Exception
        results.put((rank, traceback.format_exc(), None))


def run_ranks(ep_size: int, function, *arguments, timeout_s: float = 90) -> list:
    """[function(rank, *arguments) of each rank]. Fails with the traceback of the first rank that fails, or by time."""
    results = _CONTEXT.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            _CONTEXT.Process(target=_run, args=(rank, ep_size, f"{folder}/store", results, function, arguments))
            for rank in range(ep_size)
        ]
        for process in processes:
            process.start()
        returned, deadline = {}, time.monotonic() + timeout_s
        try:
            while len(returned) < ep_size:
                try:
                    rank, error, value = results.get(timeout=max(deadline - time.monotonic(), 0.01))
                except queue.Empty:
                    missing = sorted(set(range(ep_size)) - set(returned))
                    raise AssertionError(f"ranks {missing} did not end within {timeout_s} s") from None
                assert error is None, f"rank {rank}: {error}"
                returned[rank] = pickle.loads(value)
        finally:
            for process in processes:
                process.join(0 if len(returned) < ep_size else 10)
                if process.is_alive():
                    process.kill()
                    process.join()
    return [returned[rank] for rank in range(ep_size)]
