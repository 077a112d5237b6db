#!/usr/bin/env python3
"""Writes one broken file for each check of the loaders.

usage: make_files.py FOLDER WELL_FORMED_FOLDER

The files are made here, not stored, so that binary ones can be reviewed as text. expected.tsv has
the loader and the message of each. The second folder gets what they are made from, before it is
broken; the fuzzers start from both.
"""
import json
import lzma
import pathlib
import struct
import sys

FOLDER, WELL_FORMED_FOLDER = map(pathlib.Path, sys.argv[1:])


def write(name, data, folder=FOLDER):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


# ---- safetensors: an 8-byte length, a JSON header, the data.

def safetensors(header, data=b""):
    """A dict is padded, so that its data is aligned; text is taken as it is."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    if not isinstance(header, str):
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


A = tensor("U8", [4], 0, 4)
write("safetensors/empty", b"")
write("safetensors/short", b"\0" * 7)
write("safetensors/header_cut_off", safetensors({"a": A})[:20])
write("safetensors/header_of_2_to_60_bytes", struct.pack("<Q", 2**60) + b"{}")
write("safetensors/header_not_json", safetensors("{'a': 1}"))
write("safetensors/header_is_an_array", safetensors("[]"))
write("safetensors/name_twice",
      safetensors('{"a": %s, "a": %s}' % ((json.dumps(tensor("U8", [0], 0, 0)),) * 2)))
write("safetensors/tensor_is_a_number", safetensors({"a": 1}))
write("safetensors/key_missing", safetensors({"a": {"dtype": "U8", "shape": [0], "x": 1}}))
write("safetensors/dtype_unknown", safetensors({"a": tensor("F8_E9", [4], 0, 4)}, b"abcd"))
write("safetensors/extent_negative", safetensors({"a": tensor("U8", [-1], 0, 0)}))
write("safetensors/extent_of_2_to_60", safetensors({"a": tensor("F64", [2**60], 0, 0)}))
write("safetensors/extents_overflow", safetensors({"a": tensor("U8", [2**40, 2**40], 0, 0)}))
write("safetensors/offsets_are_three", safetensors({"a": {**A, "data_offsets": [0, 1, 4]}}, b"abcd"))
write("safetensors/offsets_reversed", safetensors({"a": tensor("U8", [4], 4, 0)}, b"abcd"))
write("safetensors/offsets_beyond_the_end", safetensors({"a": tensor("U8", [4], 4, 8)}, b"abcd"))
write("safetensors/size_differs_from_shape", safetensors({"a": tensor("F32", [4], 0, 4)}, b"abcd"))
write("safetensors/overlap", safetensors({"a": A, "b": tensor("U8", [4], 2, 6)}, b"abcdef"))
write("safetensors/gap", safetensors({"a": A, "b": tensor("U8", [2], 6, 8)}, b"abcdefgh"))
write("safetensors/data_left_over", safetensors({"a": A}, b"abcdef"))
write("safetensors/data_cut_off", safetensors({"a": A}, b"ab"))
write("safetensors/metadata_is_an_array", safetensors({"__metadata__": []}))
write("safetensors/metadata_value_is_a_number", safetensors({"__metadata__": {"a": 1}}))

# ---- traces: tensors of ids and the metadata of TraceHeader.

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


write("trace/format_missing", trace({"format": None}))
write("trace/format_of_statistics", trace({"format": "c2r.statistics"}))
write("trace/version_2", trace({"version": "2"}))
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
write("trace/weights_f32", trace(more=[("layers.0.topk_weights", "F32", [2, 2], b"\0" * 16)]))
write("trace/misaligned", safetensors(
    {"__metadata__": {**METADATA, "num_experts": "256", "layer_indices": "[0]"},
     "pad": tensor("U8", [1], 0, 1), "layers.0.topk_idx": tensor("U16", [1, 2], 1, 5)}, b"\0" * 5))

# ---- statistics.

STATISTICS = {**METADATA, "format": "c2r.statistics", "num_experts": "2", "layer_indices": "[0]"}


def statistics(counts=(3, 3, 3, 3), num_tokens=(3,), name="coactivation", shape=(1, 2, 2),
               metadata={}):
    header = {"__metadata__": {**STATISTICS, **metadata}}
    data = struct.pack(f"<{len(num_tokens)}q", *num_tokens)
    header["num_tokens"] = tensor("I64", [len(num_tokens)], 0, len(data))
    raw = struct.pack(f"<{len(counts)}q", *counts)
    header[name] = tensor("I64", list(shape), len(data), len(data) + len(raw))
    return safetensors(header, data + raw)


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

# ---- npy.


def npy(descr="|u1", shape="(2, 2)", data=b"\0\1\2\3", header=None, version=(1, 0)):
    text = header or "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n" % (descr, shape)
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + data


write("npy/empty", b"")
write("npy/magic_wrong", b"\x93NUMPX" + npy()[6:])
write("npy/cut_off_before_the_length", npy()[:9])
write("npy/header_cut_off", npy()[:40])
write("npy/header_of_4_gib", b"\x93NUMPY\3\0\xff\xff\xff\xff{}")
write("npy/version_4", npy(version=(4, 0)))
write("npy/version_1_1", npy(version=(1, 1)))
write("npy/header_not_a_dict", npy(header="[]\n"))
write("npy/header_without_line_feed", npy(header="{'descr': '|u1', 'fortran_order': False, 'shape': ()}"))
write("npy/header_goes_on", npy(header="{'descr': '|u1', 'fortran_order': False, 'shape': ()} {}\n"))
write("npy/key_unknown", npy(header="{'descr': '|u1', 'order': 'C'}\n"))
write("npy/key_twice", npy(header="{'descr': '|u1', 'descr': '|u1'}\n"))
write("npy/key_missing", npy(header="{'descr': '|u1', 'shape': (4,)}\n"))
write("npy/string_open", npy(header="{'descr: |u1}\n"))
write("npy/dtype_big_endian", npy(">i2", "(2,)"))
write("npy/dtype_complex", npy("<c8", "(2,)"))
write("npy/dtype_structured", npy(header="{'descr': [('a', '|u1')], 'fortran_order': False}\n"))
write("npy/fortran_order", npy(header="{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2)}\n"))
write("npy/order_not_a_bool", npy(header="{'descr': '|u1', 'fortran_order': 0, 'shape': (2, 2)}\n"))
write("npy/shape_not_a_tuple", npy(shape="(4)"))
write("npy/shape_negative", npy(shape="(-4,)"))
write("npy/shape_without_comma", npy(shape="(2 2)"))
write("npy/extent_of_2_to_60", npy("<i8", f"({2**60},)"))
write("npy/extent_of_2_to_64", npy("<i8", f"({2**64},)"))
write("npy/extents_overflow", npy("|u1", f"({2**40}, {2**40})"))
write("npy/data_cut_off", npy(data=b"\0\1\2"))
write("npy/data_left_over", npy(data=b"\0\1\2\3\4"))
write("npy/xz_cut_off.npy.xz", lzma.compress(npy())[:-8])
write("npy/xz_corrupt.npy.xz", lzma.compress(npy()).replace(b"NUMPY", b"NUMPX"))
write("npy/xz_is_not.npy.xz", npy())

# ---- JSON and CSV.

write("json/empty", "")
write("json/cut_off", '{"a": [1, 2')
write("json/two_values", "1 2")
write("json/key_twice", '{"a": 1, "b": {"a": 1, "a": 2}}')
write("json/too_deep", "[" * 200 + "]" * 200)
write("json/not_utf8", b'"\xff"')
write("json/number_too_large", "1e999")
write("csv/empty", "")
write("csv/field_missing", "a,b\n1,2\n3\n")
write("csv/field_too_many", "a,b\n1,2,3\n")
write("csv/empty_line", "a,b\n\n1,2\n")
write("csv/quote_in_the_middle", 'a,b\n1,x"y\n')
write("csv/quote_open", 'a,b\n1,"x\n')
write("csv/text_after_quote", 'a,b\n"1"x,2\n')
write("csv/carriage_return", "a,b\r1,2\n")

# ---- importers: 4 experts. Arrays are [num_tokens, num_layers, top_k].

write("import_npy/dtype_float", npy("<f4", "(1, 1, 1)"))
write("import_npy/shape_2d", npy())
write("import_npy/top_k_0", npy(shape="(4, 2, 0)", data=b""))
write("import_npy/top_k_above_num_experts", npy(shape="(1, 1, 5)", data=b"\0\1\2\3\4"))
write("import_npy/no_layers", npy(shape="(4, 0, 2)", data=b""))
write("import_npy/layers_of_2_to_60", npy(shape=f"(0, {2**60}, 2)", data=b""))
write("import_npy/id_out_of_range", npy(shape="(1, 2, 2)", data=b"\0\1\2\4"))
write("import_npy/expert_twice", npy(shape="(1, 2, 2)", data=b"\0\1\2\2"))


def megatron(**changes):
    record = {"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 1, "rank": 0,
              "num_tokens": 2, "topk": 2, "top_indices": [[0, 1], [2, 3]]}
    record.update(changes)
    return json.dumps({k: v for k, v in record.items() if v is not None}) + "\n"


write("import_megatron/not_json", megatron() + "step 1\n")
write("import_megatron/cut_off", megatron() + megatron()[:-10])
write("import_megatron/key_missing", megatron(top_indices=None))
write("import_megatron/block_unknown", megatron(block="encoder"))
write("import_megatron/stage_unknown", megatron(stage="post_dispatch"))
write("import_megatron/layer_negative", megatron(layer=-1))
write("import_megatron/num_tokens_differs", megatron(num_tokens=3))
write("import_megatron/topk_differs_from_rows", megatron(topk=1))
write("import_megatron/topk_changes", megatron() + megatron(topk=1, top_indices=[[0], [1]]))
write("import_megatron/topk_0", megatron(topk=0, top_indices=[[], []]))
write("import_megatron/id_out_of_range", megatron(top_indices=[[0, 1], [2, 4]]))
write("import_megatron/id_not_an_integer", megatron(top_indices=[[0, 1], [2, "x"]]))
write("import_megatron/expert_twice", megatron(top_indices=[[0, 1], [2, 2]]))
write("import_megatron/layer_shorter", megatron() + megatron() + megatron(layer=2))
write("import_megatron/only_mtp", megatron(block="mtp"))

write("import_orders-in-chaos/not_a_list", "{}")
write("import_orders-in-chaos/no_steps", "[]")
write("import_orders-in-chaos/step_not_an_object", "[[]]")
write("import_orders-in-chaos/key_not_a_layer", '[{"x": null}]')
write("import_orders-in-chaos/layer_twice", '[{"1": [[0]], "01": [[0]]}]')
write("import_orders-in-chaos/only_dense_layers", '[{"0": null}]')
write("import_orders-in-chaos/layers_change", '[{"1": [[0]]}, {"2": [[0]]}]')
write("import_orders-in-chaos/layer_shorter", '[{"1": [[0], [1]], "2": [[0]]}]')
write("import_orders-in-chaos/top_k_changes", '[{"1": [[0], [1, 2]]}]')
write("import_orders-in-chaos/id_out_of_range", '[{"1": [[0]]}, {"1": [[4]]}]')
write("import_orders-in-chaos/expert_twice", '[{"1": [[0, 1], [2, 2]]}]')

HEADER = "Layer ID,Batch Number,Token,Activated Expert IDs\n"
write("import_moe-beyond/column_missing", "Layer ID,Token\n1,a\n")
write("import_moe-beyond/layer_negative", HEADER + "-1,0,a,[0]\n")
write("import_moe-beyond/two_batches", HEADER + "1,0,a,[0]\n1,1,a,[0]\n")
write("import_moe-beyond/tokens_differ", HEADER + "1,0,a,[0]\n2,0,b,[0]\n")
write("import_moe-beyond/layer_longer", HEADER + "1,0,a,[0]\n2,0,a,[0]\n2,0,b,[0]\n")
write("import_moe-beyond/layer_shorter", HEADER + "1,0,a,[0]\n1,0,b,[0]\n2,0,a,[0]\n")
write("import_moe-beyond/ids_not_a_list", HEADER + "1,0,a,0\n")
write("import_moe-beyond/ids_broken", HEADER + '1,0,a,"[0, 1"\n')
write("import_moe-beyond/id_out_of_range", HEADER + '1,0,a,"[0, 4]"\n')
write("import_moe-beyond/expert_twice", HEADER + '1,0,a,"[0, 1]"\n1,0,b,"[2, 2]"\n')
write("import_moe-beyond/no_tokens", HEADER)

write("import_vllm/no_experts", '{"choices": [{"text": "x"}]}')
write("import_vllm/not_a_response", '{"id": 1}')
write("import_vllm/not_an_object", "1")
write("import_vllm/list_and_choices", '{"routed_experts": [[[0]]], "choices": []}')
write("import_vllm/choices_not_a_list", '{"choices": {}}')
write("import_vllm/token_not_a_list", "[1]")
write("import_vllm/token_without_layers", "[[]]")
write("import_vllm/layers_change", "[[[0], [1]], [[0]]]")
write("import_vllm/layers_change_between_choices",
      '{"choices": [{"routed_experts": [[[0]]]}, {"routed_experts": [[[0], [1]]]}]}')
write("import_vllm/row_not_a_list", "[[0]]")
write("import_vllm/top_k_0", "[[[]]]")
write("import_vllm/top_k_changes", "[[[0, 1]], [[0]]]")
write("import_vllm/id_below_minus_1", "[[[-2]]]")
write("import_vllm/id_out_of_range", "[[[0]], [[4]]]")
write("import_vllm/expert_twice", "[[[0, 1]], [[2, 2]]]")


def sglang(ids="AAAAAAEAAAA=", schema=None):
    """A response; without a schema, the test reads it as 1 layer and top-2."""
    info = {"routed_experts": ids}
    if schema is not None:
        info = {"output_expert_ids": ids, "expert_ids_schema": {
            "dtype": "int32", "layout": "row_major", "id_space": "logical_global", "num_layers": 1,
            "top_k": 2, "moe_layer_ids": [0], "output_num_rows": 1, **schema}}
    return json.dumps({"meta_info": info})


write("import_sglang/no_meta_info", "{}")
write("import_sglang/no_ids", '{"meta_info": {}}')
write("import_sglang/ids_not_a_string", '{"meta_info": {"routed_experts": [0]}}')
write("import_sglang/base64_length", sglang("AAAAA"))
write("import_sglang/base64_digit", sglang("AAAA-A=="))
write("import_sglang/rows_not_whole", sglang("AAAAAA=="))
write("import_sglang/only_zeros", sglang("AAAAAAAAAAA="))
write("import_sglang/id_out_of_range", sglang("AAAAAAQAAAA="))
write("import_sglang/id_negative", sglang("AAAAAP////8="))
write("import_sglang/expert_twice", sglang("AQAAAAEAAAA="))
write("import_sglang/schema_dtype", sglang(schema={"dtype": "int16"}))
write("import_sglang/schema_layout", sglang(schema={"layout": "column_major"}))
write("import_sglang/schema_id_space", sglang(schema={"id_space": "physical"}))
write("import_sglang/schema_layers_of_2_to_60", sglang(schema={"num_layers": 2**60}))
write("import_sglang/schema_layer_out_of_range", sglang(schema={"moe_layer_ids": [0, 1]}))
write("import_sglang/schema_layers_descend",
      sglang(schema={"num_layers": 1, "moe_layer_ids": [0, 0]}))
write("import_sglang/schema_no_layers", sglang(schema={"moe_layer_ids": []}))
write("import_sglang/schema_num_rows_differs", sglang(schema={"output_num_rows": 2}))
write("import_sglang/schema_num_rows_missing", sglang(schema={"output_num_rows": None}))

# ---- loads, top-2.

write("sglang_loads/key_missing", "{}")
write("sglang_loads/empty", '{"logical_count": []}')
write("sglang_loads/no_experts", '{"logical_count": [[]]}')
write("sglang_loads/too_many_experts", json.dumps({"logical_count": [[1] * 1025]}))
write("sglang_loads/only_zeros", '{"logical_count": [[0, 0]]}')
write("sglang_loads/count_negative", '{"logical_count": [[-1, 1]]}')
write("sglang_loads/sum_overflows", '{"logical_count": [[%d, 2]]}' % (2**63 - 1))
write("sglang_loads/steps_differ", '{"logical_count": [[[1, 1]], [[1, 1], [1, 1]]]}')
write("sglang_loads/rows_differ", '{"logical_count": [[1, 1], [1, 1, 0]]}')
write("sglang_loads/sum_odd", '{"logical_count": [[1, 2]]}')
write("sglang_loads/load_too_large", '{"logical_count": [[3, 1]]}')


def tensorrt_llm(name, rank_file="rank0.safetensors", tensor_name="0_0", meta=None, extent=2):
    write(f"tensorrt_llm_loads/{name}/meta_info.json",
          meta or '{"num_experts": 2, "num_experts_per_token": 2}')
    data = struct.pack(f"<{extent}q", *[1] * extent)
    write(f"tensorrt_llm_loads/{name}/{rank_file}",
          safetensors({tensor_name: tensor("I64", [extent], 0, len(data))}, data))


tensorrt_llm("meta_incomplete", meta='{"num_experts": 2}')
tensorrt_llm("meta_num_experts_2_to_60", meta='{"num_experts": %d}' % 2**60)
tensorrt_llm("no_ranks", rank_file="ranks.safetensors")
tensorrt_llm("rank_missing", rank_file="rank1.safetensors")
tensorrt_llm("tensor_name", tensor_name="0-0")
tensorrt_llm("shape_differs", extent=3)
write("tensorrt_llm_loads/no_meta_info/rank0.safetensors", safetensors({}))
write("tensorrt_llm_loads/no_tensors/meta_info.json",
      '{"num_experts": 2, "num_experts_per_token": 2}')
write("tensorrt_llm_loads/no_tensors/rank0.safetensors", safetensors({}))


def coactivation(values, shape="(1, 2, 2)"):
    return npy("<i8", shape, struct.pack(f"<{len(values)}q", *values))


write("coactivation/shape_not_square", coactivation([0, 1], "(1, 1, 2)"))
write("coactivation/dtype_float", npy("<f8", "(1, 2, 2)", b"\0" * 32))
write("coactivation/no_layers", npy("<i8", "(0, 2, 2)", b""))
write("coactivation/layers_of_2_to_60", npy("|u1", f"({2**60}, 0, 0)", b""))
write("coactivation/no_experts", npy("<i8", "(1, 0, 0)", b""))
write("coactivation/not_symmetric", coactivation([0, 1, 2, 0]))
write("coactivation/count_negative", coactivation([0, -1, -1, 0]))
write("coactivation/diagonal_filled", coactivation([1, 1, 1, 1]))
write("coactivation/sum_overflows",
      coactivation([0, 2**63 - 1, 2**63 - 1, 2**63 - 1, 0, 0, 2**63 - 1, 0, 0], "(1, 3, 3)"))

# ---- tokenizers: tokenizer.json, tokenizer.model (a protocol buffer), tokenizer_config.json.

# GPT-2's alphabet: a printable character for each byte.
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTE_CHARACTERS = [*map(chr, PRINTABLE), *map(chr, range(0x100, 0x100 + 256 - len(PRINTABLE)))]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "\\p{L}+"}, "behavior": "Isolated", "invert": False}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                     {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}}
FALLBACK_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}]}
START = {"id": 256, "content": "<s>", "special": True}


def tokenizer_json(model=(), vocab=(), without=(), **changes):
    vocab = {**{c: i for i, c in enumerate(BYTE_CHARACTERS)}, **dict(vocab)}
    for token in without:
        del vocab[token]
    return json.dumps({"version": "1.0", "added_tokens": [START], "normalizer": {"type": "NFC"},
                       "pre_tokenizer": BYTE_LEVEL, "post_processor": TEMPLATE,
                       "decoder": {"type": "ByteLevel"},
                       "model": {"type": "BPE", "vocab": vocab, "merges": [], **dict(model)},
                       **changes}, ensure_ascii=False)


def llama_json(**changes):
    return json.dumps({"added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "replacement": "▁"},
                       "decoder": FALLBACK_DECODER,
                       "model": {"type": "BPE", "unk_token": "a", "vocab": {"a": 0, "b": 1, "ab": 2},
                                 "merges": ["a b"]}, **changes}, ensure_ascii=False)


def steps(list_key, *steps_of_it):
    return {"type": "Sequence", list_key: list(steps_of_it)}


write("tokenizer_json/not_json", '{"model": ')
write("tokenizer_json/is_an_array", "[]")
write("tokenizer_json/key_unknown", tokenizer_json(truncate=1))
write("tokenizer_json/model_missing", '{"version": "1.0"}')
write("tokenizer_json/model_unigram", tokenizer_json({"type": "Unigram"}))
write("tokenizer_json/model_key_unknown", tokenizer_json({"dropouts": 1}))
write("tokenizer_json/dropout", tokenizer_json({"dropout": 0.1}))
write("tokenizer_json/word_suffix", tokenizer_json({"end_of_word_suffix": "</w>"}))
write("tokenizer_json/flag_is_a_number", tokenizer_json({"ignore_merges": 1}))
write("tokenizer_json/vocab_is_an_array", tokenizer_json({"vocab": []}))
write("tokenizer_json/id_negative", tokenizer_json(vocab={"ab": -1}))
write("tokenizer_json/id_of_2_to_31", tokenizer_json(vocab={"ab": 2**31 - 1}))
write("tokenizer_json/id_twice", tokenizer_json(vocab={"ab": 0}))
write("tokenizer_json/byte_missing", tokenizer_json(without="a"))
write("tokenizer_json/unknown_token_missing", tokenizer_json({"unk_token": "<unk>"}))
write("tokenizer_json/merge_of_three", tokenizer_json({"merges": ["a b c"]}))
write("tokenizer_json/merge_is_a_number", tokenizer_json({"merges": [1]}))
write("tokenizer_json/merge_result_missing", tokenizer_json({"merges": [["a", "b"]]}))
write("tokenizer_json/added_token_has_two_ids", tokenizer_json(
    added_tokens=[{"id": 256, "content": "a"}]))
write("tokenizer_json/added_token_key_unknown", tokenizer_json(added_tokens=[{**START, "x": 1}]))
write("tokenizer_json/normalizer_lowercase", tokenizer_json(normalizer={"type": "Lowercase"}))
write("tokenizer_json/normalizer_is_text", tokenizer_json(normalizer="NFC"))
write("tokenizer_json/replace_regex", tokenizer_json(normalizer=steps(
    "normalizers", {"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"})))
write("tokenizer_json/replace_nothing", tokenizer_json(
    normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "b"}))
write("tokenizer_json/pre_tokenizer_whitespace", tokenizer_json(pre_tokenizer={"type": "Whitespace"}))
write("tokenizer_json/prefix_space", tokenizer_json(
    pre_tokenizer={**BYTE_LEVEL, "add_prefix_space": True}))
write("tokenizer_json/step_after_byte_level", tokenizer_json(
    pre_tokenizer=steps("pretokenizers", BYTE_LEVEL, SPLIT)))
write("tokenizer_json/split_contiguous", tokenizer_json(
    pre_tokenizer=steps("pretokenizers", {**SPLIT, "behavior": "Contiguous"}, BYTE_LEVEL)))
write("tokenizer_json/pattern_wrong", tokenizer_json(
    pre_tokenizer=steps("pretokenizers", {**SPLIT, "pattern": {"Regex": "(a"}}, BYTE_LEVEL)))
write("tokenizer_json/pattern_of_text", tokenizer_json(
    pre_tokenizer=steps("pretokenizers", {**SPLIT, "pattern": {"String": " "}}, BYTE_LEVEL)))
write("tokenizer_json/template_without_text", tokenizer_json(
    post_processor={**TEMPLATE, "single": TEMPLATE["single"][:1]}))
write("tokenizer_json/template_with_text_twice", tokenizer_json(
    post_processor={**TEMPLATE, "single": TEMPLATE["single"][1:] * 2}))
write("tokenizer_json/template_token_missing", tokenizer_json(
    post_processor={**TEMPLATE, "special_tokens": {}}))
write("tokenizer_json/template_id_too_large", tokenizer_json(
    post_processor={**TEMPLATE, "special_tokens": {"<s>": {"ids": [257]}}}))
write("tokenizer_json/post_processor_bert", tokenizer_json(post_processor={"type": "BertProcessing"}))
write("tokenizer_json/decoder_null", tokenizer_json(decoder=None))
write("tokenizer_json/decoder_wordpiece", llama_json(decoder={"type": "WordPiece"}))
write("tokenizer_json/decoder_strips_two", llama_json(decoder=steps(
    "decoders", *FALLBACK_DECODER["decoders"],
    {"type": "Strip", "content": " ", "start": 2, "stop": 0})))
write("tokenizer_json/metaspace_of_underscores", llama_json(
    pre_tokenizer={"type": "Metaspace", "replacement": "_"}))
write("tokenizer_json/metaspace_scheme", llama_json(
    pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}))


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, value):
    """A number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text, score=0.0, kind=1):
    text = text if isinstance(text, bytes) else text.encode()
    return field(1, field(1, text) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind))


UNKNOWN = piece("<unk>", kind=2)
PIECES = (UNKNOWN + piece("<s>", kind=3) + piece("<0x0A>", kind=6) + piece("<x>", kind=4) +
          piece("▁a", -1) + piece("▁", -2) + piece("a", -3))
BPE_TRAINER = field(2, field(3, 2))
IDENTITY = field(3, field(1, b"identity") + field(4, 0))
SENTENCEPIECE = PIECES + BPE_TRAINER + IDENTITY

write("sentencepiece/empty", b"")
write("sentencepiece/cut_off", SENTENCEPIECE[:-1])
write("sentencepiece/text", b"IQ== 0\nIg== 1\n")
write("sentencepiece/length_of_2_to_60", varint(1 << 3 | 2) + varint(2**60))
write("sentencepiece/unigram", PIECES + IDENTITY)
write("sentencepiece/no_unknown_piece", BPE_TRAINER + IDENTITY + piece("a"))
write("sentencepiece/two_unknown_pieces", SENTENCEPIECE + piece("<unk2>", kind=2))
write("sentencepiece/piece_twice", SENTENCEPIECE + piece("a", -4))
write("sentencepiece/piece_empty", SENTENCEPIECE + piece(""))
write("sentencepiece/piece_not_utf8", SENTENCEPIECE + piece(b"\xff"))
write("sentencepiece/piece_type", SENTENCEPIECE + piece("b", kind=7))
write("sentencepiece/piece_unused", SENTENCEPIECE + piece("b", kind=5))
write("sentencepiece/score_is_nan", SENTENCEPIECE + piece("b", float("nan")))
write("sentencepiece/byte_names_none", SENTENCEPIECE + piece("<0xZZ>", kind=6))
write("sentencepiece/character_missing", SENTENCEPIECE + piece("ab", -4))
write("sentencepiece/normalizer", PIECES + BPE_TRAINER + field(3, field(2, b"abcd") + field(4, 0)))
write("sentencepiece/removes_spaces", PIECES + BPE_TRAINER)

write("tokenizer_config/is_an_array", "[]")
write("tokenizer_config/token_is_a_number", '{"bos_token": 1}')
write("tokenizer_config/token_missing", '{"eos_token": "<eos>"}')
write("tokenizer_config/no_bos_token", '{"eos_token": "</s>"}')
write("tokenizer_config/id_not_a_number", '{"added_tokens_decoder": {"x": {"content": "<a>"}}}')
write("tokenizer_config/id_of_2_to_60",
      '{"added_tokens_decoder": {"1152921504606846976": {"content": "<a>"}}}')
write("tokenizer_config/token_has_another_id",
      '{"added_tokens_decoder": {"1": {"content": "<s>"}}}')
write("tokenizer_config/flag_is_text", '{"bos_token": "<s>", "legacy": "no"}')
# ---- models: config.json, and folders with a checkpoint of 1 layer and 2 experts.

CONFIG = {"model_type": "mixtral", "hidden_size": 4, "vocab_size": 8, "num_hidden_layers": 1,
          "num_attention_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "num_local_experts": 2, "num_experts_per_tok": 1,
          "intermediate_size": 3, "hidden_act": "silu"}
QWEN = {**CONFIG, "model_type": "qwen2_moe", "num_experts": 2, "moe_intermediate_size": 3,
        "shared_expert_intermediate_size": 3, "norm_topk_prob": False}
LLAMA_MOE = {**CONFIG, "model_type": "llama_moe", "num_experts": 2, "num_selects": 1}
for config in (QWEN, LLAMA_MOE):
    del config["num_local_experts"]
del LLAMA_MOE["num_experts_per_tok"], LLAMA_MOE["rope_theta"]


def model_config(name, base=CONFIG, without=None, folder=FOLDER, **changes):
    config = {k: v for k, v in {**base, **changes}.items() if k != without}
    write(f"model_config/{name}", json.dumps(config), folder)


LISTS = [[[1], [0]]]
write("model_config/not_an_object", "[]")
model_config("model_type_missing", without="model_type")
model_config("architecture_unknown", model_type="mamba")
model_config("architecture_deepseek", model_type="deepseek_v3")
model_config("architecture_gpt_oss", model_type="gpt_oss")
model_config("key_missing", without="hidden_size")
model_config("key_unknown", attention_logit_softcap=30.0)
model_config("hidden_size_2_to_60", hidden_size=2**60)
model_config("hidden_size_a_string", hidden_size="4")
model_config("num_layers_0", num_hidden_layers=0)
model_config("heads_do_not_divide_hidden", num_attention_heads=3)
model_config("kv_heads_do_not_divide_heads", num_attention_heads=4, num_key_value_heads=3)
model_config("head_dim_odd", head_dim=3)
model_config("sliding_window", sliding_window=8)
model_config("layer_types", layer_types=["sliding_attention"])
model_config("rope_scaling", rope_scaling={"rope_type": "yarn", "factor": 4.0})
model_config("rope_scaling_a_number", rope_scaling=2)
model_config("rope_parameters_unknown", without="rope_theta",
             rope_parameters={"rope_type": "default", "rope_theta": 1e4, "factor": 2.0})
model_config("rope_theta_missing", without="rope_theta")
model_config("rope_theta_nan", rope_theta=float("nan"))
model_config("attention_bias", attention_bias=True)
model_config("hidden_act", hidden_act="gelu")
model_config("quantization", quantization_config={"quant_method": "fp8"})
model_config("eos_out_of_range", eos_token_id=[1, 8])
model_config("top_k_above_num_experts", num_experts_per_tok=3)
model_config("norm_topk_prob_missing", QWEN, without="norm_topk_prob")
model_config("norm_topk_prob_a_number", QWEN, norm_topk_prob=1)
model_config("no_qkv_bias", QWEN, qkv_bias=False)
model_config("no_moe_layer", QWEN, mlp_only_layers=[0])
model_config("mlp_only_layer_out_of_range", QWEN, mlp_only_layers=[1])
model_config("dense_size_missing", QWEN, without="intermediate_size", num_hidden_layers=2,
             mlp_only_layers=[0])
model_config("slices_uneven", LLAMA_MOE)
model_config("slices_of_too_few_layers", LLAMA_MOE, size_experts=[])
model_config("slices_of_too_few_experts", LLAMA_MOE, size_experts=[[3]])
model_config("scales_of_too_few_layers", LLAMA_MOE, intermediate_size=4, score_scale_factor=[])
model_config("gate_network", LLAMA_MOE, intermediate_size=4, gate_network="linear")
model_config("top_t_alone", top_t=1)
model_config("lists_alone", collaborative_list=LISTS)
model_config("lists_of_too_few_layers", top_t=1, collaborative_list=[])
model_config("lists_of_too_few_experts", top_t=1, collaborative_list=[[[1]]])
model_config("list_too_short", top_t=1, collaborative_list=[[[], [0]]])
model_config("collaborator_out_of_range", top_t=1, collaborative_list=[[[2], [0]]])
model_config("expert_its_own_collaborator", top_t=1, collaborative_list=[[[0], [0]]])


def checkpoint_tensors():
    """Name and shape of each tensor of CONFIG."""
    shapes = {"lm_head.weight": [8, 4], "model.embed_tokens.weight": [8, 4],
              "model.norm.weight": [4]}
    layer = {"input_layernorm.weight": [4], "post_attention_layernorm.weight": [4],
             "block_sparse_moe.gate.weight": [2, 4]}
    layer |= {f"self_attn.{p}_proj.weight": [4, 4] for p in "qkvo"}
    for e in range(2):
        layer |= {f"block_sparse_moe.experts.{e}.w1.weight": [3, 4],
                  f"block_sparse_moe.experts.{e}.w2.weight": [4, 3],
                  f"block_sparse_moe.experts.{e}.w3.weight": [3, 4]}
    return {**shapes, **{f"model.layers.0.{name}": shape for name, shape in layer.items()}}


def shard(shapes, dtypes={}):
    header, data = {}, b""
    for name, shape in shapes.items():
        dtype = dtypes.get(name, "F32")
        size = {"F32": 4, "BF16": 2, "I64": 8}[dtype]
        for extent in shape:
            size *= extent
        header[name] = tensor(dtype, shape, len(data), len(data) + size)
        data += b"\0" * size
    return safetensors(header, data)


def model(name, files, folder=FOLDER):
    write(f"model/{name}/config.json", json.dumps(CONFIG), folder)
    for file, data in files.items():
        write(f"model/{name}/{file}", data, folder)


def single(name, data, folder=FOLDER):
    model(name, {"model.safetensors": data}, folder)


def index(**changes):
    where = {n: "a.safetensors" if n < "model.layers" else "b.safetensors" for n in ALL_TENSORS}
    where |= {n.replace("__", "."): file for n, file in changes.items()}
    return json.dumps({"weight_map": {n: file for n, file in where.items() if file is not None}})


ALL_TENSORS = checkpoint_tensors()
FIRST = {n: s for n, s in ALL_TENSORS.items() if n < "model.layers"}
SECOND = {n: s for n, s in ALL_TENSORS.items() if n >= "model.layers"}
write("model/no_config/model.safetensors", shard(ALL_TENSORS))
write("model/not_a_folder", "")
model("no_weights", {})
single("shard_truncated", shard(ALL_TENSORS)[:-1])
single("tensor_missing", shard({n: s for n, s in ALL_TENSORS.items() if n != "model.norm.weight"}))
single("tensor_left_over", shard({**ALL_TENSORS, "model.layers.1.x": [1]}))
single("dtype_integer", shard(ALL_TENSORS, {"lm_head.weight": "I64"}))
single("shape_wrong", shard({**ALL_TENSORS, "lm_head.weight": [4, 8]}))
model("index_not_json", {"model.safetensors.index.json": "{"})
model("index_without_map", {"model.safetensors.index.json": "{}"})
model("index_leads_away", {"model.safetensors.index.json": index(lm_head__weight="../a.safetensors")})
model("index_names_a_missing_shard", {"model.safetensors.index.json": index(),
                                      "a.safetensors": shard(FIRST)})
model("index_names_the_wrong_shard",
      {"model.safetensors.index.json": index(lm_head__weight="b.safetensors"),
       "a.safetensors": shard(FIRST), "b.safetensors": shard(SECOND)})
model("index_lacks_a_tensor", {"model.safetensors.index.json": index(lm_head__weight=None),
                               "a.safetensors": shard(FIRST), "b.safetensors": shard(SECOND)})
model("tensor_in_two_shards",
      {"model.safetensors.index.json": index(), "a.safetensors": shard(FIRST),
       "b.safetensors": shard({**SECOND, "lm_head.weight": [8, 4]})})

# ---- plans, clusters, and placements of other engines: 4 experts on 2 ranks in the layers 1 and 3.

LAYER = {"layer_index": 1, "slots": [[0, 3], [1, 2]], "collaborators": [[3], [2], [1], [0]]}
PREDICTION = {"placement": "plan", "trace": "t", "num_tokens": 10, "copy_mode": "per-rank",
              "replica_rule": "random", "homes": "uniform", "is_exact": True,
              "copies_per_token": [1.1, 1.5], "wire_copies_per_token": [0.5, 0.7],
              "inter_node_copies_per_token": [0, 0], "imbalance": [1, 1.2]}
PROVENANCE = {"c2r_version": "0.1.0", "method": "affinity", "seed": 7,
              "inputs": [{"role": "trace", "name": "t"}]}
PLAN = {"format": "c2r-plan", "version": 1, "model": "m", "num_experts": 4, "top_k": 2, "top_t": 1,
        "cluster": {"num_nodes": 1, "ranks_per_node": 2},
        "layers": [LAYER, {**LAYER, "layer_index": 3}], "predictions": [PREDICTION],
        "provenance": PROVENANCE}


def without(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


def plan(name, *, without_key=None, layer=None, prediction=None, provenance=None, **changes):
    value = without({**PLAN, **changes}, without_key)
    if layer is not None:
        value["layers"] = [LAYER, {**LAYER, "layer_index": 3, **layer}]
    if prediction is not None:
        value["predictions"] = [{**PREDICTION, **prediction}]
    if provenance is not None:
        value["provenance"] = {**PROVENANCE, **provenance}
    write("plan/" + name, json.dumps(value))


write("plan/empty", "")
write("plan/an_array", json.dumps([PLAN]))
plan("format_missing", without_key="format")
plan("format_of_two_lines", format="c2r\n\x1b[31m")
plan("version_3", version=3, shiny=True)
plan("key_unknown", shiny=True)
plan("provenance_missing", without_key="provenance")
plan("num_experts_0", num_experts=0)
plan("num_experts_2_to_60", num_experts=2**60)
plan("top_k_above_num_experts", top_k=5)
plan("top_t_without_lists", layer={"collaborators": []})
plan("lists_without_top_t", without_key="top_t")
plan("lists_name_the_expert_itself", layer={"collaborators": [[0], [2], [1], [0]]})
plan("cluster_of_2_to_20_ranks", cluster={"num_nodes": 1024, "ranks_per_node": 1024})
plan("cluster_of_other_ranks", cluster={"num_nodes": 1, "ranks_per_node": 1})
plan("layers_are_an_object", layers={})
plan("layers_empty", layers=[], predictions=[])
plan("layer_negative", layer={"layer_index": -1})
plan("layers_descend", layer={"layer_index": 0})
plan("slots_ragged", layer={"slots": [[0, 3], [1]]})
plan("slots_empty", layer={"slots": [[], []]})
plan("slot_of_an_unknown_expert", layer={"slots": [[0, 3], [1, 4]]})
plan("slot_is_a_fraction", layer={"slots": [[0, 3], [1, 2.5]]})
plan("expert_twice_on_a_rank", layer={"slots": [[0, 3, 1], [1, 2, 2]]})
plan("expert_nowhere", layer={"slots": [[0, 3], [1, 0]]})
plan("prediction_of_one_layer", prediction={"imbalance": [1]})
plan("prediction_negative", prediction={"imbalance": [1, -1]})
plan("prediction_of_an_unknown_mode", prediction={"copy_mode": "by\npost"})
plan("prediction_is_exact_1", prediction={"is_exact": 1})
plan("prediction_of_minus_1_tokens", prediction={"num_tokens": -1})
plan("seed_negative", provenance={"seed": -1})
plan("input_without_name", provenance={"inputs": [{"role": "trace"}]})

CLUSTER = {"num_nodes": 2, "ranks_per_node": 4,
           "intra_node": {"bandwidth_bytes_per_s": 1e11, "latency_s": 1e-6}}


def cluster(name, **changes):
    write("cluster/" + name, json.dumps({**CLUSTER, **changes}))


write("cluster/a_number", "8")
write("cluster/num_nodes_missing", json.dumps(without(CLUSTER, "num_nodes")))
cluster("key_unknown", nodes=2)
cluster("num_nodes_0", num_nodes=0)
cluster("ranks_above_1024", num_nodes=257)
cluster("link_is_a_number", inter_node=1e9)
cluster("bandwidth_0", inter_node={"bandwidth_bytes_per_s": 0, "latency_s": 0})
cluster("latency_missing", inter_node={"bandwidth_bytes_per_s": 1})
cluster("latency_negative", inter_node={"bandwidth_bytes_per_s": 1, "latency_s": -1})
cluster("speed_is_text", device_flop_per_s="fast")
write("cluster/speed_infinite",
      '{"num_nodes": 1, "ranks_per_node": 1, "device_flop_per_s": 1e999}')

ROW = [0, 3, 1, 2]
YAML = "num_slots: 4\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n"
VLLM = {"record_type": "eplb_initial_mapping", "version": 1, "num_redundant_experts": 0,
        "num_slots": 4, "initial_global_assignments": {"0": ROW, "1": ROW}}
ASCEND_LAYER = {"layer_id": 0, "device_count": 2,
                "device_list": [{"device_id": 0, "device_expert": [0, 3]},
                                {"device_id": 1, "device_expert": [1, 2]}]}
ASCEND = {"moe_layer_count": 2, "layer_list": [ASCEND_LAYER, {**ASCEND_LAYER, "layer_id": 1}]}
INVERSE = [[0], [2], [3], [1]]
EPLB = {"physical_to_logical_map": [ROW, ROW], "logical_to_physical_map": [INVERSE, INVERSE],
        "logical_count": [[1] * 4] * 2}
PERMUTATION = {"num_experts": 4, "old_of_new": {"1": ROW, "3": ROW},
               "new_of_old": {"1": [0, 2, 3, 1], "3": [0, 2, 3, 1]}}
PATTERN = bytes([1, 0, 0, 1] * 2 + [0, 1, 1, 0] * 2)


def placement(target, name, value, folder=FOLDER):
    """A file of another engine, after a line that names its target."""
    if not isinstance(value, (bytes, str)):
        value = json.dumps(value)
    data = value if isinstance(value, bytes) else value.encode()
    write(f"placement/{target}_{name}", target.encode() + b"\n" + data, folder)


write("placement/target_unknown", "sgl\x1bang\n{}")
placement("sglang", "empty", "")
placement("sglang", "rows_too_few", {"physical_to_logical_map": [ROW, ROW, ROW]})
placement("sglang", "row_is_a_number", {"physical_to_logical_map": [0, 1, 2, 3]})
placement("sglang", "odd_slots", {"physical_to_logical_map": [[], [0, 1, 2]]})
placement("tensorrt-llm", "no_space_after_colon", "num_slots:18\n")
placement("tensorrt-llm", "key_of_control_characters", YAML + "  \x1b[31m: 1\n  \x1b[31m: 1\n")
placement("tensorrt-llm", "layer_unknown", YAML + f"  1: {ROW}\n  2: {ROW}\n  3: {ROW}\n")
placement("tensorrt-llm", "nested_first", f"  1: {ROW}\n")
placement("tensorrt-llm", "list_over_lines", YAML + "  1: [0,\n  3, 1, 2]\n")
placement("vllm-41141", "record_of_loads", {**VLLM, "record_type": "a\nb"})
placement("vllm-41141", "version_2", {**VLLM, "version": 2})
placement("vllm-41141", "slots_differ", {**VLLM, "num_slots": 6, "num_redundant_experts": 2})
placement("vllm-41141", "layers_by_index", {**VLLM,
                                            "initial_global_assignments": {"1": ROW, "3": ROW}})
placement("vllm-49572", "one_row_of_two", [ROW])
placement("vllm-49572", "expert_negative", [ROW, [-1, 1, 2, 3]])
placement("vllm-ascend", "count_differs", {**ASCEND, "moe_layer_count": 3})
placement("vllm-ascend", "layers_out_of_order", {**ASCEND, "layer_list": ASCEND["layer_list"][::-1]})
placement("vllm-ascend", "one_device", {
    **ASCEND, "layer_list": [{**ASCEND_LAYER, "device_list": ASCEND_LAYER["device_list"][:1]}] * 2})
placement("omni-infer", "shape_differs", npy("|u1", "(2, 2, 3)", PATTERN[:12]))
placement("omni-infer", "value_2", npy("|u1", "(2, 2, 4)", b"\2" + PATTERN[1:]))
placement("omni-infer", "uneven_ranks", npy("|u1", "(2, 2, 4)", b"\0" + PATTERN[1:]))
placement("eplb", "inverse_differs", {**EPLB, "logical_to_physical_map": [INVERSE, INVERSE[::-1]]})
placement("eplb", "inverse_long", {
    **EPLB, "logical_to_physical_map": [INVERSE, [[7] * 500, *INVERSE[1:]]]})
placement("eplb", "count_differs", {**EPLB, "logical_count": [[1] * 4, [2] * 4]})
placement("permutation", "inverse_differs", {**PERMUTATION, "new_of_old": PERMUTATION["old_of_new"]})
placement("permutation", "replica", {**PERMUTATION, "old_of_new": {"1": ROW, "3": ROW + [0, 1]}})

# ---- well-formed files of every loader.


def write_well_formed(name, data):
    write(name, data, WELL_FORMED_FOLDER)


write_well_formed("safetensors/1", safetensors({"__metadata__": {"a": "b"}, "a": A}, b"abcd"))
write_well_formed("trace/1", trace())
write_well_formed("trace/sequences", trace(starts=[0, 1]))
write_well_formed("trace/masked", trace(layers=(IDS, bytes([0, 255, 255, 255]))))
write_well_formed("trace/u16", trace({"num_experts": "256"}, (IDS_16, IDS_16), "U16"))
write_well_formed("trace/weights", trace(
    more=[(f"layers.{layer}.topk_weights", "F16", [2, 2], b"\0" * 8) for layer in (0, 1)]))
write_well_formed("statistics/pairs", statistics())
write_well_formed("statistics/loads", statistics(counts=(3, 3), name="load", shape=(1, 2)))
write_well_formed("npy/1", npy())
write_well_formed("npy/2", npy(version=(2, 0)))
write_well_formed("npy/compressed.npy.xz", lzma.compress(npy()))
write_well_formed("json/1", '{"a": [1, -2.5e3, "x\\u00e9", true, null, {}]}')
write_well_formed("csv/1", 'a,b\n1,"x ""y"",\r\nz"\r\n,\n')
write_well_formed("import_npy/1", npy(shape="(1, 2, 2)"))
write_well_formed("import_npy/masked", npy("|i1", "(1, 2, 2)", b"\0\xff\2\3"))
write_well_formed("import_megatron/1", megatron() + megatron(layer=2) + megatron(block="mtp"))
write_well_formed("import_orders-in-chaos/1",
                  '[{"0": null, "1": [[0, 1], [2, 3]]}, {"0": null, "1": [[3, 2]]}]')
write_well_formed("import_moe-beyond/1", HEADER + '1,0,"a\nb","[0, 1]"\n2,0,"a\nb","[2, 3]"\n')
write_well_formed("import_vllm/response", '{"prompt_routed_experts": [[[-1, -1]], [[0, 1]]], '
                  '"choices": [{"routed_experts": [[[2, 3]]]}]}')
write_well_formed("import_vllm/list", "[[[0, 1], [2, 3]]]")
write_well_formed("import_sglang/1", sglang())
write_well_formed("import_sglang/schema", sglang(schema={}))
write_well_formed("sglang_loads/steps", '{"logical_count": [[[0, 0], [1, 1]], [[0, 0], [2, 2]]]}')
write_well_formed("sglang_loads/layers", '{"logical_count": [[2, 2]]}')
write_well_formed("coactivation/1", coactivation([-1, 3, 3, -1]))
write_well_formed("tensorrt_llm_loads/1/meta_info.json",
                  '{"num_experts": 2, "num_experts_per_token": 2}')
write_well_formed("tensorrt_llm_loads/1/rank0.safetensors", safetensors(
    {"0_0": tensor("I64", [2], 0, 16)}, struct.pack("<2q", 1, 1)))
write_well_formed("tokenizer_json/byte_level", tokenizer_json({"merges": [["a", "b"]]}, {"ab": 257}))
write_well_formed("tokenizer_json/splits", tokenizer_json(
    pre_tokenizer=steps("pretokenizers", SPLIT, {"type": "Digits", "individual_digits": True},
                        BYTE_LEVEL)))
write_well_formed("tokenizer_json/llama", llama_json())
write_well_formed("sentencepiece/1", SENTENCEPIECE)
write_well_formed("tokenizer_config/1", '{"bos_token": "<s>", "eos_token": {"content": "</s>"}, '
                  '"add_eos_token": true, "legacy": false, '
                  '"added_tokens_decoder": {"2": {"content": "<a>", "lstrip": true}}}')

model_config("mixtral", folder=WELL_FORMED_FOLDER, sliding_window=None, eos_token_id=2)
model_config("qwen2", QWEN, folder=WELL_FORMED_FOLDER, use_sliding_window=False, sliding_window=8,
             num_hidden_layers=2, mlp_only_layers=[1], top_t=1, collaborative_list=LISTS)
model_config("llama_moe", LLAMA_MOE, folder=WELL_FORMED_FOLDER, size_experts=[[1, 2]],
             score_scale_factor=[4.0])
model_config("rope_parameters", without="rope_theta", folder=WELL_FORMED_FOLDER,
             rope_parameters={"rope_type": "default", "rope_theta": 1e4})
write_well_formed("plan/1", json.dumps(PLAN))
write_well_formed("plan/without_lists", json.dumps(
    without({**PLAN, "layers": [without(LAYER, "collaborators")],
             "predictions": []}, "top_t")))
write_well_formed("cluster/1", json.dumps(CLUSTER))
placement("sglang", "1", {"physical_to_logical_map": [[], ROW, [], ROW]}, WELL_FORMED_FOLDER)
placement("tensorrt-llm", "1", YAML + f"  1: {ROW}\n# a comment\n  3: {ROW}\n", WELL_FORMED_FOLDER)
placement("vllm-41141", "1", VLLM, WELL_FORMED_FOLDER)
placement("vllm-49572", "1", [ROW, ROW], WELL_FORMED_FOLDER)
placement("vllm-49572", "one_for_all", ROW, WELL_FORMED_FOLDER)
placement("vllm-ascend", "1", ASCEND, WELL_FORMED_FOLDER)
placement("omni-infer", "1", npy("|u1", "(2, 2, 4)", PATTERN), WELL_FORMED_FOLDER)
placement("eplb", "1", EPLB, WELL_FORMED_FOLDER)
placement("permutation", "1", PERMUTATION, WELL_FORMED_FOLDER)
single("single", shard(ALL_TENSORS, {"lm_head.weight": "BF16"}), WELL_FORMED_FOLDER)
model("sharded", {"model.safetensors.index.json": index(), "a.safetensors": shard(FIRST),
                  "b.safetensors": shard(SECOND)}, WELL_FORMED_FOLDER)
