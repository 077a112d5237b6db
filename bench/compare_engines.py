#!/usr/bin/env python3
"""Prefill and decode of c2r, Hugging Face transformers and llama.cpp, with random weights, in turns.

  python3 -m venv build/venv
  build/venv/bin/pip install numpy torch transformers gguf xllamacpp
  build/venv/bin/python bench/compare_engines.py build/release/c2r FOLDER --models olmoe

FOLDER gets the models, as a checkpoint and as GGUF (28 GB for olmoe), unless they are there. A model
is llama-moe (c2r alone has it), mixtral (of LLaMA-MoE's shapes), olmoe or qwen1.5-moe; NAME:N has N
layers of it. All engines have the same bf16 values as weights and as many threads as there are
processors, and run in processes of their own, one after the other, --turns times; so each turn reads the
weights anew and warms up, each phase with its own kind: a whole prompt, or a step of its batch. Of
transformers' implementations of experts, in bf16 and in f32, each phase has what was fastest in a trial;
what that was is printed. Where f32 weights do not fit into memory, that is said, and bf16 is all there is.

Before every turn experts_bench, which must be beside C2R, measures the bounds of the machine: products of
large matrices by oneDNN, and reading memory. Prints medians and the spread, and with
--json FILE writes every time.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

import random_models as models


def phases(args):
    return [("prefill", 1)] + [("decode", size) for size in args.batch]


def run_phase(engine, name, size, args, vocab):
    """Seconds of a prompt, or of all steps of a batch from an empty cache."""
    rng = random.Random(size)
    engine.start()
    if name == "prefill":
        return engine.run([[rng.randrange(vocab) for _ in range(args.prompt_tokens)]], 0)
    return sum(engine.run([[rng.randrange(vocab)] for _ in range(size)], step)
               for step in range(args.steps))


def warm_up(engine, name, size, args, vocab):
    """The phase itself, but for one step instead of all."""
    short = argparse.Namespace(prompt_tokens=args.prompt_tokens, steps=1)
    run_phase(engine, name, size, short, vocab)


def fastest_choices(engine, args, vocab):
    """{phase: (implementation, dtype)}, by the prompt and by two steps, each after a warm-up."""
    from transformers_engine import implementations
    short = argparse.Namespace(prompt_tokens=args.prompt_tokens, steps=2)
    seconds = {f"{name} {size}": {} for name, size in phases(args)}
    for dtype in engine.dtypes():
        for name, size in phases(args):
            for implementation in implementations(name):
                engine.choose(implementation, dtype)
                warm_up(engine, name, size, short, vocab)
                seconds[f"{name} {size}"][implementation, dtype] = run_phase(engine, name, size, short,
                                                                             vocab)
    for phase, trials in seconds.items():
        print(f"transformers {phase}, trial: " + ", ".join(
            f"{' in '.join(choice)} {s:.3f} s" for choice, s in trials.items()), file=sys.stderr, flush=True)
    return {phase: min(trials, key=trials.get) for phase, trials in seconds.items()}


def run_child(args):
    """One engine, one turn: prints {phase: seconds}."""
    config = json.loads(pathlib.Path(args.config).read_text())
    vocab, threads = config["vocab_size"], len(os.sched_getaffinity(0))
    choices = json.loads(args.choices)
    if args.child == "transformers":
        from transformers_engine import Transformers
        engine = Transformers(config, threads)
        choices = choices or fastest_choices(engine, args, vocab)
    else:
        from llama_cpp_engine import LlamaCpp
        engine = LlamaCpp(args.weights, threads, args.prompt_tokens, args.batch)
    seconds = {}
    for name, size in phases(args):
        if choices:
            engine.choose(*choices[f"{name} {size}"])
        warm_up(engine, name, size, args, vocab)
        seconds[f"{name} {size}"] = run_phase(engine, name, size, args, vocab)
    print(json.dumps({"seconds": seconds, "choices": choices}))


def json_of(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure_c2r(args, folder):
    result = json_of([args.c2r, "bench", "model", folder, "--prompt-tokens", str(args.prompt_tokens),
                      "--steps", str(args.steps), "--batch", *map(str, args.batch), "--rounds", "1",
                      "--json"])
    return {f"{p['name']} {p['batch_size']}": p for p in result["phases"]}


def measure_other(args, engine, folder, choices):
    return json_of([sys.executable, __file__, args.c2r, args.folder, "--child", engine, "--config",
                    folder / "config.json", "--weights", folder / "model.gguf", "--choices",
                    json.dumps(choices), "--prompt-tokens", str(args.prompt_tokens), "--steps",
                    str(args.steps), "--batch", *map(str, args.batch)])


def bench_program(args):
    """The program that measures the bounds. Says at once, not after the first model, if it cannot."""
    program = pathlib.Path(args.c2r).parent / "experts_bench"
    if not program.exists():
        sys.exit(f"{program} is missing, which measures the bounds; build all of c2r, with C2R_BUILD_TESTS")
    names = subprocess.run([program, "--benchmark_list_tests"], stdout=subprocess.PIPE, text=True, check=True).stdout
    if "BM_OneDnn" not in names:
        sys.exit(f"{program} has no oneDNN, whose products are a bound; install it (Debian: libdnnl-dev) and build again")
    return program


def measure_bounds(args):
    """FLOP/s of large products in the fastest type that oneDNN has, and bytes/s of memory."""
    result = json_of([bench_program(args), "--benchmark_format=json",
                      "--benchmark_filter=BM_MemoryRead|BM_OneDnn.*512", "--benchmark_min_time=0.5"])
    runs = [run for run in result["benchmarks"] if not run.get("error_occurred")]
    return {"flops": {run["name"]: run["flop/s"] for run in runs if "flop/s" in run},
            "bytes": max(run["bytes_per_second"] for run in runs if "bytes_per_second" in run)}


def prepare(args, spec):
    """The folder of a model; makes it if it is not there."""
    name, _, layers = spec.partition(":")
    config = models.shape_of(name, int(layers) if layers else None)
    folder = pathlib.Path(args.folder) / spec.replace(":", "-")
    if not (folder / "config.json").exists():
        models.write_checkpoint(config, folder)
    if "llama.cpp" in engines_of(args, spec) and not (folder / "model.gguf").exists():
        from llama_cpp_engine import write_gguf
        write_gguf(config, folder / "partial.gguf")
        (folder / "partial.gguf").rename(folder / "model.gguf")
    return folder


def change_turns(folder, engine):
    """Drops all checkpoints from memory, and reads c2r's again if it is next: c2r maps its weights, and would read
    experts that the warm-up did not choose while it is timed. The other engines read all weights when they start."""
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while engine == "c2r" and path.suffix == ".safetensors" and file.read(1 << 24):
                pass


def engines_of(args, spec):
    return ["c2r"] if spec.startswith("llama-moe") else args.engines


def measure(args, spec):
    folder, engines = prepare(args, spec), engines_of(args, spec)
    times = {engine: {f"{n} {s}": [] for n, s in phases(args)} for engine in engines}
    result = {"model": spec, "bounds": [], "counts": {}, "seconds": times}
    choices = {}
    for _ in range(args.turns):
        result["bounds"].append(measure_bounds(args))
        for engine in engines:
            change_turns(folder, engine)
            if engine == "c2r":
                got = measure_c2r(args, folder)
                seconds = {phase: values["seconds"][0] for phase, values in got.items()}
                result["counts"] = {phase: [v["flop"], v["weight_bytes"], v["num_tokens"]]
                                    for phase, v in got.items()}
            else:
                got = measure_other(args, engine, folder, choices if engine == "transformers" else {})
                seconds = got["seconds"]
                choices = got["choices"] or choices
            for phase, value in seconds.items():
                times[engine][phase].append(value)
                print(f"{spec} {engine} {phase}: {value:.3f} s", file=sys.stderr, flush=True)
    result["transformers_choices"] = choices
    return result


def report(result):
    """A row for each phase: tokens/s and their spread, ratios to c2r's, and the part of the bound."""
    flops = statistics.median(max(b["flops"].values()) for b in result["bounds"])
    memory = statistics.median(b["bytes"] for b in result["bounds"])
    print(f"\n{result['model']}: products {flops / 1e9:.1f} GFLOP/s, memory {memory / 1e9:.1f} GB/s")
    for phase, (flop, weight_bytes, tokens) in result["counts"].items():
        medians = {e: statistics.median(t[phase]) for e, t in result["seconds"].items()}
        cells = [f"{e} {tokens / medians[e]:.2f} ({tokens / max(t[phase]):.2f} to "
                 f"{tokens / min(t[phase]):.2f})" for e, t in result["seconds"].items()]
        cells += [f"{medians[e] / medians['c2r']:.2f}x {e}" for e in medians if e != "c2r"]
        rates = (flop / medians["c2r"] / flops, weight_bytes / medians["c2r"] / memory)
        cells.append(f"{100 * rates[0]:.0f} % of products, {100 * rates[1]:.0f} % of memory")
        if phase in result["transformers_choices"]:
            cells.append("transformers: " + " in ".join(result["transformers_choices"][phase]))
        print(f"{phase:10} tokens/s: " + "; ".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("c2r")
    parser.add_argument("folder")
    parser.add_argument("--models", nargs="+", default=["llama-moe", "mixtral", "olmoe", "qwen1.5-moe:12"])
    parser.add_argument("--engines", nargs="+", default=["c2r", "transformers", "llama.cpp"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json")
    for option in ("child", "config", "weights"):  # how it starts itself
        parser.add_argument(f"--{option}", help=argparse.SUPPRESS)
    parser.add_argument("--choices", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_child(args)
        return
    bench_program(args)
    results = [measure(args, spec) for spec in args.models]
    for result in results:
        report(result)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
