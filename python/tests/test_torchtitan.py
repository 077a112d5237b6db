"""The token dispatcher for torchtitan, beside torchtitan's own."""

import pytest
import torch
from ranks import run_ranks
from reference import copies_to

import c2r.torch as ct

pytest.importorskip("torchtitan", minversion="0.3")


def compare(rank):
    """torchtitan's own dispatcher for one rank, on the tokens of both ranks, is the reference."""
    from torch.distributed.device_mesh import init_device_mesh
    from torchtitan.models.common.token_dispatcher import LocalTokenDispatcher

    from c2r.torchtitan import C2rTokenDispatcher

    def run(dispatcher, tokens, experts):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(18, 4, generator=generator)[tokens].requires_grad_()
        scores = torch.rand(18, 3, generator=generator)[tokens].requires_grad_()
        idx = torch.rand(18, 6, generator=generator).argsort(1)[tokens, :3].contiguous()
        factors = torch.arange(1.0, 7.0)[experts].requires_grad_()
        rows, num_tokens, metadata = dispatcher.dispatch(x, scores, idx, torch.bincount(idx.flatten(), minlength=6))
        out = dispatcher.combine(rows.sin() * factors.repeat_interleave(num_tokens).unsqueeze(1), metadata, x)
        out.square().sum().backward()
        return (out.detach(), x.grad, scores.grad, factors.grad), idx

    reference, _ = run(LocalTokenDispatcher.Config(num_experts=6, top_k=3).build(), slice(None), slice(None))
    config = C2rTokenDispatcher.Config(num_experts=6, top_k=3, layer="layer 0")
    ours = config.build()
    ours.wire_meshes(ep_mesh=init_device_mesh("cpu", (2,), mesh_dim_names=("ep",)))
    own_tokens, own_experts = slice(9 * rank, 9 * rank + 9), slice(3 * rank, 3 * rank + 3)
    result, idx = run(ours, own_tokens, own_experts)
    for got, expected, own in zip(result, reference, (own_tokens, own_tokens, own_tokens, own_experts)):
        # at most 54 products of numbers below 100, in float32
        torch.testing.assert_close(got, expected[own], rtol=1e-5, atol=1e-4)
    sent = {(rank, entry.peer): entry.num_rows for entry in ct.traffic() if entry.step == "dispatch"}
    assert sent == copies_to(idx, ct.contiguous(6, 2), rank, "per-rank")

    alone = config.build()
    alone.wire_meshes(ep_mesh=None)
    assert all(torch.equal(*pair) for pair in zip(run(alone, slice(None), slice(None))[0], reference))


def test_a_layer_equals_torchtitans_own_on_one_rank():
    run_ranks(2, compare)
