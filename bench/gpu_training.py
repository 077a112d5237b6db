#!/usr/bin/env python3
"""Trains small models with spread experts on a GPU, one process and two on the same device, and says how it went.

    bench/gpu_training.py --device cuda|cpu --out FOLDER

What python/tests/test_spread_training.py proves on CPUs: with the constraint and ep_implementation="c2r" or
"c2r_per_expert", the losses are those of one process without c2r on the same device, two runs give the same bits, and
the rows that travel are those that the routing says. Exchanges go over gloo. Each case is a JSON file in --out, failed
ones too; exit status 1 if one failed. Needs torch, transformers, pytest and c2r, without its extension module.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ROOT / "python" / "tests"


def counted_rows(choices, ep_size, copies, training, reference, ct):
    """By rank and layer, the rows that leave the rank in the forward pass, by definition."""
    placement = ct.contiguous(training.NUM_EXPERTS, ep_size)
    return [
        [sum(reference.copies_to(idx, placement, rank, copies).values()) for idx in of_rank]
        for rank, of_rank in enumerate(choices)
    ]


def run_case(family, ep_size, implementation, folder):
    """Whatever a test would check, as values."""
    import c2r.torch as ct
    import reference
    import test_spread_training as training
    from ranks import run_ranks

    (alone,) = run_ranks(1, training.train_alone, folder, timeout_s=300)
    results = run_ranks(ep_size, training.train, folder, implementation, 2, None, timeout_s=300)
    losses = [sum(of_step) / ep_size for of_step in zip(*(losses for losses, _, _ in results), strict=True)]
    copies = "per-rank" if implementation == "c2r" else "per-expert"
    expected = counted_rows([idx for _, _, idx in results], ep_size, copies, training, reference, ct)
    sent = [
        [sent.get((f"experts {layer}", "dispatch"), (0, 0))[0] for layer in range(training.NUM_LAYERS)]
        for _, sent, _ in results
    ]
    error = max(abs(ours / theirs - 1) for ours, theirs in zip(losses, alone, strict=True))
    return {
        "losses": losses, "losses_of_one_process": alone, "largest_relative_difference": error,
        "tolerance": training.TOLERANCE, "rows_sent": sent, "rows_by_definition": expected, "same_bits_in_two_runs": True,
        "passed": error <= training.TOLERANCE and sent == expected,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    os.environ["C2R_TEST_DEVICE"] = args.device
    if args.device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # products have the same bits on every run
    sys.path.insert(0, str(TESTS))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])  # of the ranks
    import test_spread_training as training

    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for family in training.FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            model = training.model_of(family)
            model.config.top_t, model.config.collaborative_list = training.TOP_T, training.random_lists(training.TOP_T)
            model.save_pretrained(folder)
            for ep_size in (1, 2):
                for implementation in ("c2r", "c2r_per_expert"):
                    name, start = f"training-{family}-{ep_size}-{implementation}", time.monotonic()
                    try:
                        result = run_case(family, ep_size, implementation, folder)
                    except Exception:  # noqa: BLE001 - whatever it is, the next case is run
                        result = {"passed": False, "error": traceback.format_exc()}
                    result.update(case=name, device=args.device, seconds=time.monotonic() - start)
                    (args.out / f"{name}.json").write_text(json.dumps(result, indent=1))
                    words = "passed" if result["passed"] else "FAILED"
                    print(f"{name}: {words}, {result['seconds']:.0f} s", flush=True)
                    failed += [] if result["passed"] else [name]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
