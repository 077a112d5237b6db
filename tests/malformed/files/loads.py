"""Loads of experts and pairs of them, top-2, that the importers of statistics read."""
import json
import struct

from .containers import npy, safetensors, tensor


def write_tensorrt_llm(write, name, rank_file="rank0.safetensors", tensor_name="0_0", meta=None,
                       extent=2):
    write(f"tensorrt_llm_loads/{name}/meta_info.json",
          meta or '{"num_experts": 2, "num_experts_per_token": 2}')
    data = struct.pack(f"<{extent}q", *[1] * extent)
    write(f"tensorrt_llm_loads/{name}/{rank_file}",
          safetensors({tensor_name: tensor("I64", [extent], 0, len(data))}, data))


def coactivation(values, shape="(1, 2, 2)"):
    return npy("<i8", shape, struct.pack(f"<{len(values)}q", *values))


def broken_sglang(write):
    write("sglang_loads/key_missing", "{}")
    write("sglang_loads/empty", '{"logical_count": []}')
    write("sglang_loads/no_experts", '{"logical_count": [[]]}')
    write("sglang_loads/too_many_experts", json.dumps({"logical_count": [[1] * 1025]}))
    write("sglang_loads/only_zeros", '{"logical_count": [[0, 0]]}')
    write("sglang_loads/count_negative", '{"logical_count": [[-1, 1]]}')
    write("sglang_loads/sum_overflows", '{"logical_count": [[%d, 2]]}' % (2**63 - 1))
    write("sglang_loads/steps_differ", '{"logical_count": [[[1, 1]], [[1, 1], [1, 1]]]}')
    write("sglang_loads/rows_differ", '{"logical_count": [[1, 1], [1, 1, 0]]}')
    write("sglang_loads/count_of_half", '{"logical_count": [[0.5, 1]]}')
    write("sglang_loads/count_beyond_2_to_53", '{"logical_count": [[1e16, 1]]}')
    write("sglang_loads/load_too_large", '{"logical_count": [[3, 1]]}')


def vllm_record(**changes):
    record = {"record_type": "eplb_load_stats", "version": 1, "step": 0, "num_ranks": 2,
              "expert_load": [[3, 1, 2, 2]], "p2l_map": [[0, 1, 2, 1]], **changes}
    return json.dumps({key: value for key, value in record.items() if value is not None}) + "\n"


def broken_vllm(write):
    write("vllm_loads/no_record", '{"record_type": "eplb_load_meta"}')
    write("vllm_loads/type_missing", "{}")
    write("vllm_loads/version_2", vllm_record(version=2))
    write("vllm_loads/map_missing", vllm_record(p2l_map=None))
    write("vllm_loads/map_shorter", vllm_record(p2l_map=[[0, 1, 2]]))
    write("vllm_loads/layers_differ", vllm_record(p2l_map=[[0, 1, 2, 1]] * 2))
    write("vllm_loads/layers_change", vllm_record() + vllm_record(expert_load=[[1]] * 2, p2l_map=[[0]] * 2))
    write("vllm_loads/no_layers", vllm_record(expert_load=[], p2l_map=[]))
    write("vllm_loads/no_slots", vllm_record(expert_load=[[]], p2l_map=[[]]))
    write("vllm_loads/expert_of_2_to_40", vllm_record(p2l_map=[[0, 1, 2, 2**40]]))
    write("vllm_loads/count_negative", vllm_record(expert_load=[[3, -1, 2, 2]]))
    write("vllm_loads/sum_overflows", vllm_record(expert_load=[[0, 2**63 - 1, 0, 1]]))


def broken_table(write):
    write("table_loads/column_missing", "layer,expert\n")
    write("table_loads/no_rows", "layer,expert,count\n")
    write("table_loads/expert_1024", "layer,expert,count\n0,1024,1\n")
    write("table_loads/count_negative", "layer,expert,count\n0,0,-1\n")
    write("table_loads/sum_overflows", f"layer,expert,count\n0,0,{2**63 - 1}\n0,0,1\n")
    write("table_loads/load_too_large", "layer,expert,count\n0,0,3\n0,1,1\n")


def broken_tensorrt_llm(write):
    write_tensorrt_llm(write, "meta_incomplete", meta='{"num_experts": 2}')
    write_tensorrt_llm(write, "meta_num_experts_2_to_60", meta='{"num_experts": %d}' % 2**60)
    write_tensorrt_llm(write, "no_ranks", rank_file="ranks.safetensors")
    write_tensorrt_llm(write, "rank_missing", rank_file="rank1.safetensors")
    write_tensorrt_llm(write, "tensor_name", tensor_name="0-0")
    write_tensorrt_llm(write, "shape_differs", extent=3)
    write("tensorrt_llm_loads/no_meta_info/rank0.safetensors", safetensors({}))
    write("tensorrt_llm_loads/no_tensors/meta_info.json",
          '{"num_experts": 2, "num_experts_per_token": 2}')
    write("tensorrt_llm_loads/no_tensors/rank0.safetensors", safetensors({}))


def broken_coactivation(write):
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


def write_broken(write):
    broken_sglang(write)
    broken_vllm(write)
    broken_table(write)
    broken_tensorrt_llm(write)
    broken_coactivation(write)


def write_well_formed(write):
    write("sglang_loads/steps", '{"logical_count": [[[0, 0], [1, 1]], [[0, 0], [2, 2]]]}')
    write("sglang_loads/layers", '{"logical_count": [[2, 2]]}')
    write("sglang_loads/whole_floats", '{"logical_count": [[2.0, 2.0]]}')
    write("sglang_loads/sum_odd", '{"logical_count": [[1, 2]]}')
    write("vllm_loads/1", vllm_record() + '{"record_type": "eplb_load_meta"}\n' + vllm_record())
    write("table_loads/csv", "layer,expert,count\n3,0,4\n3,1,2\n3,2,2\n")
    write("table_loads/json", json.dumps({"layer": 3, "expert": 1, "count": 0}) + "\n" + json.dumps(
        {"layer": 3, "expert": 0, "count": 0}))
    write("tensorrt_llm_loads/1/meta_info.json",
          '{"num_experts": 2, "num_experts_per_token": 2}')
    write("tensorrt_llm_loads/1/rank0.safetensors", safetensors(
        {"0_0": tensor("I64", [2], 0, 16)}, struct.pack("<2q", 1, 1)))
    write("coactivation/1", coactivation([-1, 3, 3, -1]))
