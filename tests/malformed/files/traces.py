"""Routing traces and statistics: tensors of ids or counts, and the metadata of TraceHeader."""
import struct

from .containers import safetensors, tensor

METADATA = {"format": "c2r.trace", "version": "1", "model": "m", "num_experts": "4", "top_k": "2",
            "layer_indices": "[0, 1]", "id_space": "logical"}
IDS = bytes([0, 1, 2, 3])
IDS_16 = struct.pack("<4H", *IDS)


def trace(metadata={}, layers=(IDS, IDS), dtype="U8", width=2, starts=None, more=()):
    """Two layers of two tokens; a None in `metadata` removes the key."""
    metadata = {k: v for k, v in {**METADATA, **metadata}.items() if v is not None}
    header, data = {"__metadata__": metadata}, b""

    def add(name, kind, shape, raw):
        nonlocal data
        header[name] = tensor(kind, shape, len(data), len(data) + len(raw))
        data += raw

    if starts is not None:
        add("sequence_starts", "I64", [len(starts)], struct.pack(f"<{len(starts)}q", *starts))
    for layer, ids in enumerate(layers):
        size = 2 if dtype == "U16" else 1
        add(f"layers.{layer}.topk_idx", dtype, [len(ids) // width // size, width], ids)
    for name, kind, shape, raw in more:
        add(name, kind, shape, raw)
    return safetensors(header, data)


def with_logits(layers=(0, 1), dtype="F16", num_experts=4, last=b"\0\0"):
    """A trace of version 2; `last` are the bytes of each layer's last logit."""
    size = 2 * num_experts * (2 if dtype == "F16" else 4)
    return trace({"version": "2"}, more=[
        (f"layers.{layer}.logits", dtype, [2, num_experts], bytes(size - len(last)) + last) for layer in layers])


STATISTICS = {**METADATA, "format": "c2r.statistics", "num_experts": "2", "layer_indices": "[0]"}


def statistics(counts=(3, 3, 3, 3), num_tokens=(3,), name="coactivation", shape=(1, 2, 2),
               metadata={}):
    header = {"__metadata__": {**STATISTICS, **metadata}}
    data = struct.pack(f"<{len(num_tokens)}q", *num_tokens)
    header["num_tokens"] = tensor("I64", [len(num_tokens)], 0, len(data))
    raw = struct.pack(f"<{len(counts)}q", *counts)
    header[name] = tensor("I64", list(shape), len(data), len(data) + len(raw))
    return safetensors(header, data + raw)


def broken_traces(write):
    write("trace/format_missing", trace({"format": None}))
    write("trace/format_of_statistics", trace({"format": "c2r.statistics"}))
    write("trace/version_3", trace({"version": "3"}))
    write("trace/version_2_without_logits", trace({"version": "2"}))
    write("trace/logits_of_one_layer", with_logits(layers=(0,)))
    write("trace/logits_f32", with_logits(dtype="F32"))
    write("trace/logits_of_3_experts", with_logits(num_experts=3))
    write("trace/logits_infinite", with_logits(last=b"\0\x7c"))
    write("trace/version_missing", trace({"version": None}))
    write("trace/id_space_physical", trace({"id_space": "physical"}))
    write("trace/num_experts_missing", trace({"num_experts": None}))
    write("trace/num_experts_0", trace({"num_experts": "0"}))
    write("trace/num_experts_2_to_60", trace({"num_experts": str(2**60)}))
    write("trace/num_experts_not_a_number", trace({"num_experts": "four"}))
    write("trace/top_k_above_num_experts", trace({"top_k": "5"}))
    write("trace/layer_indices_not_an_array", trace({"layer_indices": "2"}))
    write("trace/layer_indices_empty", trace({"layer_indices": "[]"}))
    write("trace/layer_indices_negative", trace({"layer_indices": "[-1, 0]"}))
    write("trace/layer_indices_descend", trace({"layer_indices": "[1, 0]"}))
    write("trace/layer_indices_too_large", trace({"layer_indices": "[0, 65536]"}))
    write("trace/layer_indices_too_many", trace({"layer_indices": str(list(range(1025)))}))
    write("trace/layer_missing", trace(layers=(IDS,)))
    write("trace/layers_of_different_length", trace(layers=(IDS, IDS + IDS)))
    write("trace/dtype_u16", trace(layers=(IDS_16, IDS_16), dtype="U16"))
    write("trace/dtype_u8_of_256_experts", trace({"num_experts": "256"}))
    write("trace/top_k_differs", trace(width=4))
    write("trace/id_out_of_range", trace(layers=(IDS, bytes([0, 1, 2, 4]))))
    write("trace/expert_twice", trace(layers=(IDS, bytes([0, 1, 3, 3]))))
    write("trace/sequence_starts_at_1", trace(starts=[1]))
    write("trace/sequence_starts_descend", trace(starts=[0, 1, 1]))
    write("trace/sequence_starts_beyond_the_end", trace(starts=[0, 2]))
    write("trace/sequence_starts_empty", trace(starts=[]))
    write("trace/weights_of_one_layer",
          trace(more=[("layers.0.topk_weights", "F16", [2, 2], b"\0" * 8)]))
    write("trace/weights_of_the_other_layer",
          trace(more=[("layers.1.topk_weights", "F16", [2, 2], b"\0" * 8)]))
    write("trace/weights_f32", trace(more=[("layers.0.topk_weights", "F32", [2, 2], b"\0" * 16)]))


def broken_statistics(write):
    write("statistics/format_of_a_trace", trace())
    write("statistics/version_2", statistics(metadata={"version": "2"}))
    write("statistics/counts_missing", statistics(name="counts"))
    write("statistics/num_tokens_of_two_layers", statistics(num_tokens=(3, 3)))
    write("statistics/shape_differs", statistics(shape=(2, 1, 2)))
    write("statistics/load_shape_differs", statistics(name="load", shape=(4,)))
    write("statistics/not_symmetric", statistics(counts=(3, 2, 3, 3)))
    write("statistics/count_negative", statistics(counts=(3, -1, -1, 3)))
    write("statistics/count_above_num_tokens", statistics(counts=(3, 3, 3, 4)))
    write("statistics/load_above_num_tokens", statistics(counts=(3, 4), name="load", shape=(1, 2)))
    write("statistics/claims_1024_layers_of_1024_experts", statistics(
        metadata={"num_experts": "1024", "layer_indices": str(list(range(1024)))}))


def write_broken(write):
    broken_traces(write)
    broken_statistics(write)


def write_well_formed(write):
    write("trace/1", trace())
    write("trace/sequences", trace(starts=[0, 1]))
    write("trace/masked", trace(layers=(IDS, bytes([0, 255, 255, 255]))))
    write("trace/u16", trace({"num_experts": "256"}, (IDS_16, IDS_16), "U16"))
    write("trace/logits", with_logits())
    write("trace/weights", trace(
        more=[(f"layers.{layer}.topk_weights", "F16", [2, 2], b"\0" * 8) for layer in (0, 1)]))
    write("statistics/pairs", statistics())
    write("statistics/loads", statistics(counts=(3, 3), name="load", shape=(1, 2)))
