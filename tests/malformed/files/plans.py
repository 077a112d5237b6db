"""Plans and clusters: 4 experts on 2 ranks in the layers 1 and 3."""
import json

from .containers import without

LAYER = {"layer_index": 1, "slots": [[0, 3], [1, 2]], "collaborators": [[3], [2], [1], [0]]}
PREDICTION = {"placement": "plan", "trace": "t", "num_tokens": 10, "copy_mode": "per-rank",
              "replica_rule": "random", "homes": "uniform", "is_exact": True,
              "copies_per_token": [1.1, 1.5], "wire_copies_per_token": [0.5, 0.7],
              "inter_node_copies_per_token": [0, 0], "imbalance": [1, 1.2]}
PROVENANCE = {"c2r_version": "0.1.0", "method": "affinity", "seed": 7,
              "inputs": [{"role": "trace", "name": "t"}]}
PLAN = {"format": "c2r-plan", "version": 3, "model": "m", "num_experts": 4, "top_k": 2, "top_t": 1,
        "cluster": {"num_nodes": 1, "ranks_per_node": 2},
        "layers": [LAYER, {**LAYER, "layer_index": 3}], "predictions": [PREDICTION],
        "provenance": PROVENANCE}
SEQUENCES = {"trace_hash": "0123456789abcdef", "ranks": [0, 1]}
SIGNATURE = {"layer_index": 3, "num_tokens": 2, "weights": [[1, 1, 0, 0], [0, 0, 1, 0.5]]}
HOMES = {"sequences": [SEQUENCES], "signature": SIGNATURE}
CLUSTER = {"num_nodes": 2, "ranks_per_node": 4,
           "intra_node": {"bandwidth_bytes_per_s": 1e11, "latency_s": 1e-6}}
LINK = {"bandwidth_bytes_per_s": 1e9, "latency_s": 1e-6}
HARDWARE = {"intra_node": LINK, "inter_node": {**LINK, "message_s": 1e-7}}


def plan(*, without_key=None, layer=None, prediction=None, provenance=None, **changes):
    value = without({**PLAN, **changes}, without_key)
    if layer is not None:
        value["layers"] = [LAYER, {**LAYER, "layer_index": 3, **layer}]
    if prediction is not None:
        value["predictions"] = [{**PREDICTION, **prediction}]
    if provenance is not None:
        value["provenance"] = {**PROVENANCE, **provenance}
    return json.dumps(value)


def cluster(**changes):
    return json.dumps({**CLUSTER, **changes})


def broken_plans(write):
    write("plan/empty", "")
    write("plan/an_array", json.dumps([PLAN]))
    write("plan/format_missing", plan(without_key="format"))
    write("plan/format_of_two_lines", plan(format="c2r\n\x1b[31m"))
    write("plan/version_4", plan(version=4, shiny=True))
    write("plan/homes_of_version_2", plan(version=2, homes=HOMES))
    write("plan/key_unknown", plan(shiny=True))
    write("plan/provenance_missing", plan(without_key="provenance"))
    write("plan/num_experts_0", plan(num_experts=0))
    write("plan/num_experts_2_to_60", plan(num_experts=2**60))
    write("plan/top_k_above_num_experts", plan(top_k=5))
    write("plan/top_t_without_lists", plan(layer={"collaborators": []}))
    write("plan/lists_without_top_t", plan(without_key="top_t"))
    write("plan/lists_name_the_expert_itself", plan(layer={"collaborators": [[0], [2], [1], [0]]}))
    write("plan/cluster_of_2_to_20_ranks",
          plan(cluster={"num_nodes": 1024, "ranks_per_node": 1024}))
    write("plan/cluster_of_other_ranks", plan(cluster={"num_nodes": 1, "ranks_per_node": 1}))
    write("plan/layers_are_an_object", plan(layers={}))
    write("plan/layers_empty", plan(layers=[], predictions=[]))
    write("plan/layer_negative", plan(layer={"layer_index": -1}))
    write("plan/layers_descend", plan(layer={"layer_index": 0}))
    write("plan/slots_ragged", plan(layer={"slots": [[0, 3], [1]]}))
    write("plan/slots_empty", plan(layer={"slots": [[], []]}))
    write("plan/slot_of_an_unknown_expert", plan(layer={"slots": [[0, 3], [1, 4]]}))
    write("plan/slot_is_a_fraction", plan(layer={"slots": [[0, 3], [1, 2.5]]}))
    write("plan/expert_twice_on_a_rank", plan(layer={"slots": [[0, 3, 1], [1, 2, 2]]}))
    write("plan/wasted_slot_in_use", plan(layer={"wasted_slots": [[1, 0]]}))
    write("plan/wasted_slot_twice", plan(layer={
        "slots": [[0, 3, 1], [1, 2, 2]], "wasted_slots": [[1, 2], [1, 2]]}))
    write("plan/wasted_slot_of_rank_2", plan(layer={"wasted_slots": [[2, 0]]}))
    write("plan/wasted_slot_2_to_40", plan(layer={"wasted_slots": [[0, 2**40]]}))
    write("plan/wasted_slot_without_rank", plan(layer={"wasted_slots": [[0]]}))
    write("plan/expert_nowhere", plan(layer={"slots": [[0, 3], [1, 0]]}))
    write("plan/prediction_of_one_layer", plan(prediction={"imbalance": [1]}))
    write("plan/prediction_negative", plan(prediction={"imbalance": [1, -1]}))
    write("plan/prediction_of_an_unknown_mode", plan(prediction={"copy_mode": "by\npost"}))
    write("plan/prediction_is_exact_1", plan(prediction={"is_exact": 1}))
    write("plan/prediction_of_minus_1_tokens", plan(prediction={"num_tokens": -1}))
    write("plan/prediction_of_some_copies", json.dumps(
        {**PLAN, "predictions": [without(PREDICTION, "copies_per_token")]}))
    write("plan/home_on_no_rank", plan(homes={"sequences": [{**SEQUENCES, "ranks": [0, 2]}]}))
    write("plan/homes_without_a_hash", plan(homes={"sequences": [{**SEQUENCES, "trace_hash": "t"}]}))
    write("plan/homes_empty", plan(homes={}))
    write("plan/signature_of_3_experts", plan(homes={"signature": {**SIGNATURE, "weights": [[1, 0, 0]]}}))
    write("plan/signature_of_another_layer", plan(homes={"signature": {**SIGNATURE, "layer_index": 2}}))
    write("plan/seed_negative", plan(provenance={"seed": -1}))
    write("plan/input_without_name", plan(provenance={"inputs": [{"role": "trace"}]}))
    write("plan/input_of_an_unknown_part",
          plan(provenance={"inputs": [{"role": "trace", "name": "t", "part": "third"}]}))


def broken_clusters(write):
    write("cluster/a_number", "8")
    write("cluster/num_nodes_missing", json.dumps(without(CLUSTER, "num_nodes")))
    write("cluster/key_unknown", cluster(nodes=2))
    write("cluster/num_nodes_0", cluster(num_nodes=0))
    write("cluster/ranks_above_1024", cluster(num_nodes=257))
    write("cluster/link_is_a_number", cluster(inter_node=1e9))
    write("cluster/bandwidth_0", cluster(inter_node={"bandwidth_bytes_per_s": 0, "latency_s": 0}))
    write("cluster/latency_missing", cluster(inter_node={"bandwidth_bytes_per_s": 1}))
    write("cluster/latency_negative",
          cluster(inter_node={"bandwidth_bytes_per_s": 1, "latency_s": -1}))
    write("cluster/speed_is_text", cluster(device_flop_per_s="fast"))
    write("cluster/speed_infinite",
          '{"num_nodes": 1, "ranks_per_node": 1, "device_flop_per_s": 1e999}')


def hardware(**changes):
    return json.dumps({**HARDWARE, **changes})


def broken_hardware(write):
    write("hardware/empty", "")
    write("hardware/a_name", '"h800-ib400"')
    write("hardware/link_missing", json.dumps(without(HARDWARE, "inter_node")))
    write("hardware/key_unknown", hardware(num_nodes=2))
    write("hardware/key_of_a_link_unknown", hardware(intra_node={**LINK, "loss": 0}))
    write("hardware/link_is_a_list", hardware(intra_node=[1e9, 1e-6]))
    write("hardware/bandwidth_missing", hardware(inter_node={"latency_s": 1e-6}))
    write("hardware/bandwidth_negative", hardware(inter_node={**LINK, "bandwidth_bytes_per_s": -1}))
    write("hardware/message_negative", hardware(inter_node={**LINK, "message_s": -1e-9}))
    write("hardware/rate_0", hardware(device_flop_per_s=0))
    write("hardware/rate_is_text", hardware(memory_bytes_per_s="3e12"))
    write("hardware/rate_infinite", hardware(device_flop_per_s=1).replace(": 1}", ": 1e999}"))


def write_broken(write):
    broken_hardware(write)
    broken_plans(write)
    broken_clusters(write)


def write_well_formed(write):
    write("plan/1", json.dumps(PLAN))
    write("plan/version_1", plan(version=1))
    write("plan/with_homes", plan(homes=HOMES))
    write("plan/wasted_slot", plan(layer={"slots": [[0, 3, 1], [1, 2, 2]], "wasted_slots": [[1, 2]]}))
    write("plan/without_lists", json.dumps(
        without({**PLAN, "layers": [without(LAYER, "collaborators")],
                 "predictions": []}, "top_t")))
    write("cluster/1", json.dumps(CLUSTER))
    write("hardware/1", hardware())
    write("hardware/with_rates", hardware(device_flop_per_s=1e12, memory_bytes_per_s=1e12))
