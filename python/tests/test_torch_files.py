"""The command line reads files of torch.save() as torch.load() does, whatever is in them."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
c2r = pytest.importorskip("c2r", reason="pip install . builds the extension module and the program")
pytest.importorskip("c2r._c2r", reason="pip install . builds the extension module and the program")


def import_trace(tmp_path, *words):
    command = [sys.executable, "-m", "c2r", "import", *map(str, words), "-o", "out.safetensors"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    return c2r.Trace(tmp_path / "out.safetensors")


def random_map(generator, layers, experts, slots):
    rows = [torch.cat([torch.randperm(experts, generator=generator), torch.randint(experts, (slots - experts,))])
            for _ in range(layers)]  # fmt: skip
    return torch.stack(rows).to(torch.int64)


def random_ids(generator, p2l, num_tokens, top_k, width, dtype):
    """[layers, tokens, width] of slots with distinct experts; the first layer is dense."""
    layers, slots = p2l.shape
    ids = torch.full((layers, num_tokens, width), -1, dtype=dtype)
    for layer in range(1, layers):
        for token in range(num_tokens):
            chosen = {}
            for slot in torch.randperm(slots, generator=generator).tolist():
                chosen.setdefault(int(p2l[layer, slot]), slot)
            ids[layer, token, :top_k] = torch.tensor(list(chosen.values())[:top_k], dtype=dtype)
    return ids


def strange(tensor, kind):
    """The same elements, laid out another way."""
    if kind == "transposed":
        return tensor.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    if kind == "slice":
        return torch.cat([torch.zeros_like(tensor[:, :1]), tensor], 1)[:, 1:]
    return tensor


@pytest.mark.parametrize("seed", range(6))
def test_recordings_hold_what_torch_load_finds(tmp_path, seed):
    generator = torch.Generator().manual_seed(seed)
    layers, experts, slots, top_k, width = 3 + seed, 5 + seed, 8 + seed, 1 + seed % 3, 8
    p2l = random_map(generator, layers, experts, slots)
    dtype = [torch.int32, torch.int64, torch.int16, torch.int8][seed % 4]
    kind = ["plain", "transposed", "slice"][seed % 3]
    records = []
    for step in range(3):
        ids = strange(random_ids(generator, p2l, 4 * step + 1, top_k, width, dtype), kind)
        records.append({"forward_pass_id": step, "rank": 0, "gatherer_key": "primary", "topk_ids_of_layer": ids,
                        "input_ids": list(range(4 * step + 1)), "extend_seq_lens": None})  # fmt: skip
    torch.save({"records": records, "last_physical_to_logical_map": p2l}, tmp_path / "dump.pt")
    trace = import_trace(tmp_path, "--from", "sglang-recorder", "dump.pt")

    loaded = torch.load(tmp_path / "dump.pt", weights_only=True)
    for layer in range(1, layers):
        slot_ids = torch.cat([one["topk_ids_of_layer"][layer, :, :top_k] for one in loaded["records"]]).long()
        expected = loaded["last_physical_to_logical_map"][layer][slot_ids]
        assert trace.topk_idx(layer - 1, 0, trace.num_tokens).tolist() == expected.tolist()


def test_a_hostile_file_is_refused_and_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"records": [Hostile()]}, tmp_path / "hostile.pt")
    command = [sys.executable, "-m", "c2r", "import", "--from", "sglang-recorder", "hostile.pt", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "names __builtin__.open" in done.stderr or "names io.open" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "executed").exists()
