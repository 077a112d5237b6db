"""Placements of other engines: 4 experts on 2 ranks in the layers 1 and 3."""
import json

from .containers import npy

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


def write_placement(write, target, name, value):
    """A file that `c2r export --to TARGET` would write."""
    if not isinstance(value, (bytes, str)):
        value = json.dumps(value)
    write(f"{target.replace('-', '_')}_placement/{name}", value)


def write_broken(write):
    write_placement(write, "sglang", "empty", "")
    write_placement(write, "sglang", "rows_too_few", {"physical_to_logical_map": [ROW, ROW, ROW]})
    write_placement(write, "sglang", "row_is_a_number", {"physical_to_logical_map": [0, 1, 2, 3]})
    write_placement(write, "sglang", "odd_slots", {"physical_to_logical_map": [[], [0, 1, 2]]})
    write_placement(write, "tensorrt-llm", "no_space_after_colon", "num_slots:18\n")
    write_placement(write, "tensorrt-llm", "key_of_control_characters",
                    YAML + '  "\\e[31m": 1\n  "\\e[31m": 1\n')
    write_placement(write, "tensorrt-llm", "layer_unknown",
                    YAML + f"  1: {ROW}\n  2: {ROW}\n  3: {ROW}\n")
    write_placement(write, "tensorrt-llm", "list_cut_off", YAML + "  1: [0,\n  3, 1, 2\n")
    write_placement(write, "tensorrt-llm", "no_placement", "num_slots: 4\nlayer_updates_per_iter: 2\n")
    write_placement(write, "tensorrt-llm", "file_of_the_balancer", "moe_config: {load_balancer: eplb.yaml}\n")
    write_placement(write, "tensorrt-llm", "alias", YAML + f"  1: &row {ROW}\n  3: *row\n")
    write_placement(write, "tensorrt-llm", "key_is_a_list", "[1]: 2\n")
    write_placement(write, "tensorrt-llm", "nested_10000_deep", "[" * 10000)
    write_placement(write, "vllm-41141", "record_of_loads", {**VLLM, "record_type": "a\nb"})
    write_placement(write, "vllm-41141", "version_2", {**VLLM, "version": 2})
    write_placement(write, "vllm-41141", "slots_differ",
                    {**VLLM, "num_slots": 6, "num_redundant_experts": 2})
    write_placement(write, "vllm-41141", "layers_by_index",
                    {**VLLM, "initial_global_assignments": {"1": ROW, "3": ROW}})
    write_placement(write, "vllm-49572", "one_row_of_two", [ROW])
    write_placement(write, "vllm-49572", "expert_negative", [ROW, [-1, 1, 2, 3]])
    write_placement(write, "vllm-ascend", "count_differs", {**ASCEND, "moe_layer_count": 3})
    write_placement(write, "vllm-ascend", "layers_out_of_order",
                    {**ASCEND, "layer_list": ASCEND["layer_list"][::-1]})
    write_placement(write, "vllm-ascend", "two_layers_more", {**ASCEND, "moe_layer_count": 4,
                                                              "layer_list": ASCEND["layer_list"] * 2})
    write_placement(write, "vllm-ascend", "shared_on_one_device", {"moe_layer_count": 2, "layer_list": [
        {"device_count": 2, "device_list": [{"device_expert": [0, 1, 4]}, {"device_expert": [2, 3, 0]}]}] * 2})
    write_placement(write, "vllm-ascend", "one_device", {**ASCEND, "layer_list": [
        {**ASCEND_LAYER, "device_list": ASCEND_LAYER["device_list"][:1]}] * 2})
    write_placement(write, "omni-infer", "shape_differs", npy("|u1", "(2, 2, 3)", PATTERN[:12]))
    write_placement(write, "omni-infer", "value_2", npy("|u1", "(2, 2, 4)", b"\2" + PATTERN[1:]))
    write_placement(write, "omni-infer", "uneven_ranks",
                    npy("|u1", "(2, 2, 4)", b"\0" + PATTERN[1:]))
    write_placement(write, "eplb", "inverse_differs",
                    {**EPLB, "logical_to_physical_map": [INVERSE, INVERSE[::-1]]})
    write_placement(write, "eplb", "inverse_long", {
        **EPLB, "logical_to_physical_map": [INVERSE, [[7] * 500, *INVERSE[1:]]]})
    write_placement(write, "eplb", "count_differs", {**EPLB, "logical_count": [[1] * 4, [2] * 4]})
    write_placement(write, "permutation", "inverse_differs",
                    {**PERMUTATION, "new_of_old": PERMUTATION["old_of_new"]})
    write_placement(write, "permutation", "replica",
                    {**PERMUTATION, "old_of_new": {"1": ROW, "3": ROW + [0, 1]}})


def write_well_formed(write):
    write_placement(write, "sglang", "1", {"physical_to_logical_map": [[], ROW, [], ROW]})
    write_placement(write, "sglang", "wasted_slot", {"physical_to_logical_map": [[], [*ROW, 0, 0], [], [*ROW, 1, 1]]})
    write_placement(write, "tensorrt-llm", "1", YAML + f"  1: {ROW}\n# a comment\n  3: {ROW}\n")
    write_placement(write, "tensorrt-llm", "inline", "moe_config:\n    load_balancer:\n        num_slots: 4  # of all ranks\n"
                    f"        initial_global_assignments:\n            1:\n            - 0\n            - 3\n"
                    f"            - 1\n            - 2\n            3: {ROW}\n")
    write_placement(write, "vllm-41141", "1", VLLM)
    write_placement(write, "vllm-41141", "lines",
                    '{"record_type": "eplb_load_stats"}\n' + 2 * (json.dumps(VLLM) + "\n"))
    write_placement(write, "vllm-41141", "over_lines", json.dumps(VLLM, indent=1))
    write_placement(write, "vllm-ascend", "shared_and_mtp", {"moe_layer_count": 3, "layer_list": [
        {"layer_id": 1 + i, "device_count": 2, "device_list": [
            {"device_expert": [0, 3, 4]}, {"device_expert": [1, 2, 4]}]} for i in range(3)]})
    write_placement(write, "vllm-49572", "1", [ROW, ROW])
    write_placement(write, "vllm-49572", "one_for_all", ROW)
    write_placement(write, "vllm-ascend", "1", ASCEND)
    write_placement(write, "omni-infer", "1", npy("|u1", "(2, 2, 4)", PATTERN))
    write_placement(write, "eplb", "1", EPLB)
    write_placement(write, "permutation", "1", PERMUTATION)
