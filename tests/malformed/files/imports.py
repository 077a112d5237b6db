"""What the importers of routing traces read, for 4 experts."""
import base64
import io
import json
import zipfile

from .containers import npy

HEADER = "Layer ID,Batch Number,Token,Activated Expert IDs\n"


def megatron(**changes):
    record = {"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 1, "rank": 0,
              "num_tokens": 2, "topk": 2, "top_indices": [[0, 1], [2, 3]]}
    record.update(changes)
    return json.dumps({k: v for k, v in record.items() if v is not None}) + "\n"


def megatron_logits(**changes):
    return megatron(**{"logit_offset": 0, "logit_bytes": 16, "logit_shape": [2, 4], **changes})


def sglang(ids="AAAAAAEAAAA=", schema=None, **more):
    """A response; without a schema, the test reads it as 1 layer and top-2."""
    info = {"routed_experts": ids, **more}
    if schema is not None:
        info = {"output_expert_ids": ids, "expert_ids_schema": {
            "dtype": "int32", "layout": "row_major", "id_space": "logical_global", "num_layers": 1,
            "top_k": 2, "moe_layer_ids": [0], "output_num_rows": 1, **schema}}
    return json.dumps({"meta_info": info})


def vllm_array(data):
    return json.dumps({"routed_experts": base64.b64encode(data).decode()})


def vllm_packed(data="009", shape=(1, 1, 2), **more):
    """One token, one layer, top-2, as Dynamo (base85, no dtype) or prime-rl (base64, dtype) pack it."""
    return json.dumps({"routed_experts": {"data": data, "shape": shape, **more}})


def npz(compression=zipfile.ZIP_DEFLATED, **arrays):
    """What numpy.savez_compressed() writes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, data in arrays.items():
            zipped.writestr(zipfile.ZipInfo(name + ".npy"), data, compression)
    return file.getvalue()


def broken_npz(write):
    ids = npy(shape="(1, 2, 2)")
    good = npz(ids=ids)
    write("import_npy/npz_cut_off", good[:-10])
    write("import_npy/npz_of_nothing", npz())
    write("import_npy/npz_of_two_arrays", npz(a=ids, b=ids))
    write("import_npy/npz_layer_twice", npz(L1=npy(), L01=npy()))
    write("import_npy/npz_layers_differ", npz(L1=npy(), L2=npy(shape="(1, 4)")))
    write("import_npy/npz_id_out_of_range", npz(L1=npy(), L2=npy(data=b"\0\1\2\4")))
    write("import_npy/npz_bzip2", npz(zipfile.ZIP_BZIP2, ids=ids))
    write("import_npy/npz_array_cut_off", npz(ids=ids[:-1]))
    at = good.index(b"PK\x01\x02")  # the directory's entry, whose sizes follow
    write("import_npy/npz_claims_to_be_huge", good[:at + 24] + b"\0\0\0\x7f" + good[at + 28:])
    write("import_npy/npz_claims_to_be_larger", good[:at + 24] + b"\xff\1\0\0" + good[at + 28:])


def broken_npy(write):
    write("import_npy/dtype_complex", npy("<c8", "(1, 1, 1)", b"\0" * 8))
    write("import_npy/element_of_half", npy("<f2", "(1, 1, 1)", b"\0\x38"))
    write("import_npy/shape_2d", npy())
    write("import_npy/top_k_0", npy(shape="(4, 2, 0)", data=b""))
    write("import_npy/top_k_above_num_experts", npy(shape="(1, 1, 5)", data=b"\0\1\2\3\4"))
    write("import_npy/no_tokens", npy(shape="(0, 2, 2)", data=b""))
    write("import_npy/no_layers", npy(shape="(4, 0, 2)", data=b""))
    write("import_npy/layers_of_2_to_60", npy(shape=f"(0, {2**60}, 2)", data=b""))
    write("import_npy/id_out_of_range", npy(shape="(1, 2, 2)", data=b"\0\1\2\4"))
    write("import_npy/expert_twice", npy(shape="(1, 2, 2)", data=b"\0\1\2\2"))


def broken_megatron(write):
    write("import_megatron/not_json", megatron() + "step 1\n")
    write("import_megatron/cut_off", megatron() + megatron()[:-10])
    write("import_megatron/key_missing", megatron(top_indices=None))
    write("import_megatron/no_tokens", megatron(num_tokens=0, top_indices=[]))
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
    write("import_megatron/layer_shorter",
          megatron() + megatron(top_indices=[[1, 0], [2, 3]]) + megatron(layer=2))
    write("import_megatron/step_missing", megatron(step=None))
    write("import_megatron/logits_of_3_experts", megatron_logits(logit_shape=[2, 3]))
    write("import_megatron/logits_of_8_bytes", megatron_logits(logit_bytes=8))
    write("import_megatron/logits_without_offset", megatron_logits(logit_offset=-1))
    write("import_megatron/logits_infinite/trace.jsonl", megatron_logits())
    write("import_megatron/logits_infinite/logits_rank0.bin", b"\x80\x7f" * 8)
    write("import_megatron/logits_cut_off/trace.jsonl", megatron_logits())
    write("import_megatron/logits_cut_off/logits_rank0.bin", bytes(15))
    write("import_megatron/logits_far_away/trace.jsonl", megatron_logits(logit_offset=2**59))
    write("import_megatron/logits_far_away/logits_rank0.bin", bytes(16))
    write("import_megatron/only_mtp", megatron(block="mtp"))


def broken_orders_in_chaos(write):
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


def broken_moe_beyond(write):
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


def broken_table(write):
    write("import_table/column_missing", "layer,token\n0,0\n")
    write("import_table/column_twice", "layer,token,expert,token\n0,0,0,0\n")
    write("import_table/no_rows", "layer,token,expert\n")
    write("import_table/empty", "")
    write("import_table/expert_out_of_range", "layer,token,expert\n0,0,4\n")
    write("import_table/layer_negative", "layer,token,expert\n-1,0,0\n")
    write("import_table/token_of_2_to_60", json.dumps({"layer": 0, "token": 2**60, "expert": 0}))
    write("import_table/key_missing", '{"layer": 0, "token": 0}')
    write("import_table/not_an_object", "[[0, 0, 0]]")
    write("import_table/expert_twice", "layer,token,expert\n0,0,1\n0,0,1\n")
    write("import_table/layers_differ_from_top_k", "layer,token,expert\n" + "".join(
        f"0,0,{e % 4}\n" for e in range(5)))


def broken_vllm(write):
    write("import_vllm/no_experts", '{"choices": [{"text": "x"}]}')
    write("import_vllm/not_a_response", '{"id": 1}')
    write("import_vllm/not_an_object", "1")
    write("import_vllm/list_and_choices", '{"routed_experts": [[[0]]], "choices": []}')
    write("import_vllm/choices_not_a_list", '{"choices": {}}')
    write("import_vllm/token_not_a_list", "[1]")
    write("import_vllm/token_without_layers", "[[]]")
    write("import_vllm/layers_change", "[[[0], [1]], [[0]]]")
    write("import_vllm/layers_change_between_choices",
          '{"choices": [{"routed_experts": [[[1]]]}, {"routed_experts": [[[1], [1]]]}]}')
    write("import_vllm/only_zeros", "[[[0]]]")
    write("import_vllm/dense_layer_with_ids",
          '{"choices": [{"routed_experts": [[[0], [1]]]}, {"routed_experts": [[[1], [1]]]}]}')
    write("import_vllm/base64_digit", '{"routed_experts": "****"}')
    write("import_vllm/base64_no_array", '{"routed_experts": "AAAA"}')
    write("import_vllm/base64_of_2_dimensions", vllm_array(npy(shape="(2, 2)")))
    write("import_vllm/base64_id_out_of_range", vllm_array(npy(shape="(1, 2, 2)", data=b"\0\1\2\4")))
    write("import_vllm/base64_cut_off", vllm_array(npy(shape="(9, 2, 2)")))
    write("import_vllm/usage_negative", '{"routed_experts": [[[1]]], "usage": {"prompt_tokens": -1}}')
    write("import_vllm/row_not_a_list", "[[0]]")
    write("import_vllm/top_k_0", "[[[]]]")
    write("import_vllm/top_k_changes", "[[[0, 1]], [[0]]]")
    write("import_vllm/id_below_minus_1", "[[[-2]]]")
    write("import_vllm/id_out_of_range", "[[[0]], [[4]]]")
    write("import_vllm/expert_twice", "[[[0, 1]], [[2, 2]]]")


def broken_packed(write):
    write("import_vllm/packed_no_shape", '{"routed_experts": {"data": "009"}}')
    write("import_vllm/packed_shape_differs", vllm_packed(shape=[1, 1, 3]))
    write("import_vllm/packed_shape_negative", vllm_packed(shape=[1, -1, 2]))
    write("import_vllm/packed_shape_2d", vllm_packed(shape=[1, 2]))
    write("import_vllm/packed_shape_of_2_to_93", vllm_packed(shape=[2**31 - 1] * 3))
    write("import_vllm/packed_base85_digit", vllm_packed('0R"'))
    write("import_vllm/packed_base85_alone", vllm_packed("0RRF3|"))
    write("import_vllm/packed_base85_too_large", vllm_packed("~~~~~", [1, 1, 2]))
    write("import_vllm/packed_dtype", vllm_packed("AAE=", dtype="float16"))
    write("import_vllm/packed_bytes_differ", vllm_packed("AAEC", dtype="uint8"))
    write("import_vllm/packed_start", vllm_packed("AAE=", dtype="uint8", start=-1))
    write("import_vllm/packed_by_dynamo", '{"nvext": {"routed_experts": {"data": 1}}}')
    write("import_vllm/second_line_cut_off", "[[[0, 1]]]\n[[[2, 3\n")


def broken_sglang(write):
    write("import_sglang/choices_not_a_list", '{"choices": {}}')
    write("import_sglang/choice_without_ids", '{"choices": [{"sgl_ext": {}}]}')
    write("import_sglang/ext_not_an_object", '{"choices": [], "sglext": 1}')
    write("import_sglang/no_meta_info", "{}")
    write("import_sglang/no_ids", '{"meta_info": {}}')
    write("import_sglang/ids_not_a_string", '{"meta_info": {"routed_experts": [0]}}')
    write("import_sglang/dtype_unknown", sglang(routed_experts_dtype="float32"))
    write("import_sglang/num_tokens_differ", sglang(prompt_tokens=2, completion_tokens=1))
    write("import_sglang/num_tokens_negative", sglang(prompt_tokens=-1))
    write("import_sglang/base64_length", sglang("AAAAA"))
    write("import_sglang/base64_digit", sglang("AAAA-A=="))
    write("import_sglang/rows_not_whole", sglang("AAAAAA=="))
    write("import_sglang/only_zeros", sglang("AAAAAAAAAAA="))
    write("import_sglang/id_out_of_range", sglang("AAAAAAQAAAA="))
    write("import_sglang/id_negative", sglang("AAAAAP7///8="))
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


def write_broken(write):
    broken_npy(write)
    broken_npz(write)
    broken_megatron(write)
    broken_orders_in_chaos(write)
    broken_moe_beyond(write)
    broken_table(write)
    broken_vllm(write)
    broken_packed(write)
    broken_sglang(write)


def write_well_formed(write):
    write("import_npy/1", npy(shape="(1, 2, 2)"))
    write("import_npy/floats", npy("<f4", "(1, 2, 1)", b"\0\0\x80\x3f\0\0\0\0"))
    write("import_npy/big_endian", npy(">i2", "(1, 1, 2)", b"\0\1\0\2"))
    write("import_npy/npz", npz(ids=npy(shape="(1, 2, 2)"), other=npy()))
    write("import_npy/npz_layers", npz(zipfile.ZIP_STORED, L2_idx=npy(), L5_idx=npy()))
    write("import_npy/masked", npy("|i1", "(1, 2, 2)", b"\0\xff\2\3"))
    write("import_megatron/1", megatron() + megatron(layer=2) + megatron(block="mtp"))
    write("import_megatron/logits/trace.jsonl", megatron_logits())
    write("import_megatron/logits/logits_rank0.bin", bytes(16))
    write("import_orders-in-chaos/1",
          '[{"0": null, "1": [[0, 1], [2, 3]]}, {"0": null, "1": [[3, 2]]}]')
    write("import_moe-beyond/1", HEADER + '1,0,"a\nb","[0, 1]"\n2,0,"a\nb","[2, 3]"\n')
    write("import_table/csv", "token,layer,expert\n5,1,0\n5,2,3\n7,1,2\n5,1,1\n")
    write("import_table/json", json.dumps([{"layer": 1, "token": 5, "expert": e} for e in (0, 3)]))
    write("import_vllm/response",
          '{"prompt_routed_experts": [[[-1, -1]], [[0, 1]]], '
          '"choices": [{"routed_experts": [[[2, 3]]]}]}')
    write("import_vllm/list", "[[[0, 1], [2, 3]]]")
    write("import_vllm/array", vllm_array(npy(shape="(1, 2, 2)", data=b"\0\1\2\3")))
    write("import_vllm/packed_by_dynamo", json.dumps({"choices": [], "nvext": json.loads(vllm_packed())}))
    write("import_vllm/packed_by_prime_rl",
          json.dumps({"choices": [json.loads(vllm_packed("AAE=", start=3, dtype="uint8"))]}))
    write("import_vllm/lines", "[[[0, 1]]]\n\n[[[2, 3]]]\n")
    write("import_vllm/all_layers", "[[[0, 0], [2, 3]]]")
    write("import_sglang/1", sglang())
    write("import_sglang/openai", json.dumps({"choices": [
        {"sgl_ext": json.loads(sglang())["meta_info"]}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}))
    write("import_sglang/list", f"[{sglang()}, {sglang()}]")
    write("import_sglang/uint8", sglang("AAECAw==", routed_experts_dtype="uint8"))
    write("import_sglang/num_tokens", sglang(prompt_tokens=1, completion_tokens=1, cached_tokens=0))
    write("import_sglang/schema", sglang(schema={}))
