#!/usr/bin/env python3
"""Thousands of mutated files through the command line: each command ends in order, whatever the file holds.

  mutated_commands_test.py BUILD [--number 20000] [--seed 1] [--from 0]

BUILD is a build folder with fuzzers (the preset asan). The files are those of tests/malformed, broken and not, and our
own: models, tokenizers, traces, statistics, plans, clusters. mutated_commands.cc says what must be true of each run. A
run that fails is named by its number; --from NUMBER --number 1 repeats it.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "end_to_end"))
import small_model  # noqa: E402

RUNS_OF_A_PROCESS = 250
FILE = "@"  # in a command: the mutated file
OUT = ["-o", "out"]
PLAN = ["plan", FILE, "--cluster", "1x2", "--effort", "0.05", "--threads", "1", *OUT]
TINY = ["--tokens", "tokens.jsonl", "--threads", "1"]

# The commands that read a file of each kind, by the loader that tests/malformed names.
COMMANDS = {
    "trace": [["analyze", FILE, "--ranks", "2"], PLAN, ["simulate", "plan.json", FILE],
              ["report", FILE, "--plan", "plan.json", *OUT], ["collaborators", FILE, "--top-t", "2", *OUT],
              ["compare", FILE, "--cluster", "1x2"]],
    "statistics": [["analyze", FILE], PLAN],
    "safetensors": [["analyze", FILE], ["import", FILE, *OUT]],
    "npy": [["import", "--from", "npy", FILE, "--num-experts", "8", *OUT]],
    "csv": [["import", "--from", "npy", "expert_ids.npy", "--num-experts", "8", "--sequences", FILE, *OUT]],
    "json": [["import", FILE, *OUT], ["export", FILE, "--to", "sglang"]],
    "plan": [["export", FILE, "--to", target] for target in ("sglang", "vllm-49572", "tensorrt-llm", "eplb")]
            + [["simulate", FILE, "trace.safetensors"],
               ["score", "tiny_model", *TINY, "--plan", FILE, "--ranks", "2"]],
    "cluster": [["plan", "trace.safetensors", "--cluster", FILE, "--effort", "0.05", *OUT]],
    "hardware": [["simulate", "plan.json", "trace.safetensors", "--hidden", "64", "--intermediate", "64", "--hardware", FILE]],
    "recognize": [["import", FILE, *OUT]],
    "torch": [["import", FILE, *OUT]],
    # In the folder of a model, under the name after "/".
    "tokenizer_json": [["tokenize", "words/tokenizer.json", "text.txt", "--json"]],
    "sentencepiece": [["tokenize", "pieces/tokenizer.model", "text.txt", "--json"]],
    "tokenizer_config": [["tokenize", "pieces/tokenizer_config.json", "text.txt", "--json"]],
    "model_config": [["inspect", "config_only/config.json"]],
}
# Our own files, by the command that reads them.
OWN = [("trace", "trace.safetensors"), ("statistics", "statistics.safetensors"), ("plan", "plan.json"),
       ("cluster", "cluster.json"), ("npy", "expert_ids.npy"), ("csv", "sequences.csv")]
MODEL_COMMANDS = [["inspect", FILE], ["score", FILE, *TINY], ["generate", FILE, "--tokens", "[1, 2]",
                  "--max-new-tokens", "2", "--threads", "1"], ["profile", FILE, *TINY, *OUT]]


def make_inputs(c2r, folder):
    """Files that the commands need, valid ones."""
    small_model.write_inputs(folder)
    (folder / "cluster.json").write_text('{"num_nodes": 1, "ranks_per_node": 2}')
    for words in (
        ["import", "--from", "npy", "expert_ids.npy", "--num-experts", "8", "--sequences", "sequences.csv", "-o",
         "trace.safetensors"],
        ["analyze", "trace.safetensors", "--heat-map", "none", "-o", "statistics.safetensors"],
        ["plan", "trace.safetensors", "--cluster", "1x2", "--effort", "0.05", "-o", "plan.json"],
    ):
        subprocess.run([c2r, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name, tokenizer in ("words", "qwen2"), ("pieces", "llama"):
        (folder / name).mkdir()
        for path in (ROOT / "tests" / "golden" / "tokenizers" / tokenizer).glob("tokenizer*"):
            shutil.copy(path, folder / name)
    (folder / "config_only").mkdir()


def command_case(source, words, suffix=""):
    """A line of the cases: the file is written to the path that the command names, or to one of its own."""
    at = next((word for word in words if "/" in word), None)
    if at is not None:  # a file of a folder, which the command gets as a whole
        return [str(source), at, *(at.split("/")[0] if word == at else word for word in words)]
    path = "mutated" + suffix
    return [str(source), path, *(path if word == FILE else word for word in words)]


def model_cases(source_folder, name, folder):
    """Each file of a model's folder is mutated, while the others stay as they are."""
    shutil.copytree(source_folder, folder / name)
    for file in sorted(path for path in source_folder.iterdir() if path.is_file() and path.name != "expected.json"):
        for words in MODEL_COMMANDS:
            yield [str(file), f"{name}/{file.name}", *(name if word == FILE else word for word in words)]


def import_cases(source, words, number, folder):
    """The files of an import, one of which is mutated if they are a folder."""
    command = ["import", "--from", words[0], FILE, *words[1:], *OUT]
    if source.is_file():
        yield command_case(source, command)
        return
    name = f"folder_{number}"
    shutil.copytree(source, folder / name)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        yield [str(file), f"{name}/{file.relative_to(source)}", *(name if word == FILE else word for word in command)]


def corpus_cases(corpus, imports, folder):
    for number, source in enumerate(sorted(path for loader in corpus for path in loader.iterdir())):
        loader = source.parent.name
        if loader in imports:
            yield from import_cases(source, imports[loader], number, folder)
        elif loader == "model" and source.is_dir():
            yield from model_cases(source, f"model_{number}", folder)
        elif source.is_file() and loader != "model":
            for words in COMMANDS[loader]:
                yield command_case(source, words, ".json" if loader in ("cluster", "hardware") else "")


def make_cases(build, folder):
    listed = subprocess.run([build / "tests" / "fuzz" / "mutated_commands", "list"], capture_output=True, text=True,
                            check=True).stdout
    imports = {words[0]: words[1:] for words in (line.split("\t") for line in listed.splitlines())}
    seeds = build / "tests" / "malformed"
    corpus = sorted(loader for kind in ("well_formed", "files") for loader in (seeds / kind).iterdir())
    cases = list(corpus_cases(corpus, imports, folder))
    cases += 3 * [case for case in cases if "well_formed" in case[0]]  # which reach more code than broken ones
    num_corpus = len(cases)
    for loader, name in OWN:
        shutil.copy(folder / name, folder / f"seed_{name}")
        for words in COMMANDS[loader]:
            cases.append(command_case(folder / f"seed_{name}", words, ".json" if loader == "cluster" else ""))
    for name in ("tiny_model", "model"):
        shutil.copytree(folder / name, folder / f"seed_{name}")
        cases += model_cases(folder / f"seed_{name}", f"own_{name}", folder)
    cases += 3 * cases[num_corpus:]
    (folder / "cases").write_text("".join("\t".join(case) + "\n" for case in cases), encoding="utf-8")
    return len(cases)


def run_part(build, template, begin, end, seed):
    """@returns what is wrong with the first run that fails, or nothing"""
    with tempfile.TemporaryDirectory(dir=template.parent) as copy:
        folder = pathlib.Path(copy) / "inputs"
        shutil.copytree(template, folder)
        done = subprocess.run([build / "tests" / "fuzz" / "mutated_commands", template / "cases", str(begin), str(end),
                               str(seed)], cwd=folder, capture_output=True, text=True, errors="replace", check=False,
                              env={**os.environ, "ASAN_OPTIONS": "hard_rss_limit_mb=3000"})
        if done.returncode == 0:
            return None
        number = (folder / "number").read_text()
        return f"run {number} ended with {done.returncode}; repeat it with --seed {seed} --from {number} --number 1\n" \
               f"{done.stderr[-4000:]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--number", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0)
    options = parser.parse_args()
    build, end = options.build.resolve(), options.first + options.number
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        template = pathlib.Path(folder) / "template"
        template.mkdir()
        make_inputs(build / "c2r", template)
        num_cases = make_cases(build, template)
        parts = [(begin, min(end, begin + RUNS_OF_A_PROCESS))
                 for begin in range(options.first, end, RUNS_OF_A_PROCESS)]
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            wrong = [text for text in pool.map(lambda part: run_part(build, template, *part, options.seed), parts) if text]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{options.number} mutated files of {num_cases} commands: {len(wrong)} parts with findings")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
