"""c2r.evaluate: the harness's tasks over c2r's engine and over transformers, which agree."""

import json
import os
import pathlib
import random

import pytest
import torch

pytest.importorskip("lm_eval")
pytest.importorskip("c2r._c2r", reason="the program comes with the installed package: pip install .")

import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import c2r.hf
from c2r.evaluate.__main__ import evaluate, main, table
from c2r.evaluate.tasks import TASKS, check_documents
from c2r.lm_eval import C2rLM

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "models" / "nano-qwen-moe"
DATA = ROOT.parent / "shared" / "data" / "eval"
IS_LONG = "C2R_LONG_TESTS" in os.environ
NUM_DOCUMENTS = 20 if IS_LONG else 3  # of each task
# Otherwise those whose documents have another form than the harness's, and one of each other kind.
NAMES = list(TASKS) if IS_LONG else ["boolq", "hellaswag", "lambada_openai", "logiqa"]
NUM_LAYERS, NUM_EXPERTS, TOP_T = 4, 32, 6


@pytest.fixture(scope="module")
def constrained(tmp_path_factory):
    """A copy of the model whose config has lists, and the model of the harness over transformers with them."""
    folder = tmp_path_factory.mktemp("constrained")
    shuffle = random.Random(1)
    lists = [
        [shuffle.sample([e for e in range(NUM_EXPERTS) if e != expert], TOP_T) for expert in range(NUM_EXPERTS)]
        for _ in range(NUM_LAYERS)
    ]
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    c2r.hf.constrain(model, lists)
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    tokenizer.save_pretrained(folder)
    return folder, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)


def requests(*arguments):
    return [Instance("loglikelihood", {}, given, 0) for given in arguments]


def test_log_likelihoods_are_the_harnesss(constrained):
    """Float32 on both sides: sums of some tens of log-probabilities, each within 1e-5, as docs/models.md has it."""
    folder, reference = constrained
    text = (ROOT / "README.md").read_text()
    shuffle = random.Random(2)
    pairs = [("", "The city"), ("", "<|endoftext|>The city"), ("  x\u00a0 ", " y"), (text, "the end of a long one")]
    while len(pairs) < 24:
        begin, length = shuffle.randrange(len(text) - 300), shuffle.randrange(1, 150)
        context = text[begin : begin + length]
        continuation = text[begin + length : begin + length + shuffle.randrange(1, 60)]
        # Where a token spans the border, nothing may be left of the continuation, which the harness refuses.
        if context.strip() and reference._encode_pair(context, continuation)[1]:
            pairs.append((context, continuation))
    ours = C2rLM(str(folder), dtype="f32", threads=1)
    expected = reference.loglikelihood(requests(*pairs), disable_tqdm=True)
    for (found, is_greedy), (wanted, wanted_greedy), pair in zip(
        ours.loglikelihood(requests(*pairs)), expected, pairs, strict=True
    ):
        assert abs(found - wanted) <= 1e-3, pair
        assert is_greedy == wanted_greedy


def test_rolling_log_likelihoods_are_the_harnesss(constrained):
    folder, reference = constrained
    text = (ROOT / "README.md").read_text()
    documents = [(text[:5],), (text[:4500],)]  # less than a window, and two windows that overlap
    found = C2rLM(str(folder), dtype="f32", threads=1).loglikelihood_rolling(requests(*documents))
    wanted = reference.loglikelihood_rolling(requests(*documents), disable_tqdm=True)
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.skipif(not DATA.exists(), reason=f"the documents of the tasks are not in {DATA}")
def test_tasks_have_the_same_metrics_over_both_engines(constrained):
    folder, reference = constrained
    for name in TASKS:
        check_documents(name, DATA)
    ours = evaluate(C2rLM(str(folder), dtype="f32", threads=1), NAMES, DATA, NUM_DOCUMENTS)
    theirs = evaluate(reference, NAMES, DATA, NUM_DOCUMENTS)
    assert list(ours) == NAMES
    for name, metrics in theirs.items():
        assert ours[name]["documents"] == NUM_DOCUMENTS
        assert ours[name] == pytest.approx(metrics, rel=1e-3), name
    assert "lambada_openai" in table(ours)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{missing}", "--data", "{data}"], "{missing} is not a folder with a model"),
        (["{model}", "--data", "{data}", "--tasks", "mmlu"], "there is no task 'mmlu'; there are all, arc_challenge"),
        (["{model}", "--data", "{data}", "--tasks", "piqa"],
         "{data}/piqa.jsonl is missing: the documents of the task piqa"),
        (["{model}", "--data", "{data}", "--tasks", "boolq"],
         "{data}/boolq.jsonl:1: a document of boolq has passage, question, label, but here is no passage"),
        (["{model}", "--data", "{data}", "--tasks", "lambada_openai"], "{data}/lambada.jsonl:2: is not JSON: Expecting"),
        (["{model}", "--data", "{data}", "--tasks", "rte"], "{data}/rte.jsonl has no documents"),
        (["{model}", "--data", "{data}", "--limit", "0"], "--limit is 0, but must be at least 1"),
        (["{model}", "--data", "{data}", "--tasks", "sciq", "--c2r", "{missing}"], "there is no program {missing}"),
        (["{model}", "--data", "{data}", "--tasks", "sciq", "--engine", "transformers", "--ranks", "2"],
         "--ranks is for --engine c2r"),
    ],
)  # fmt: skip
def test_mistakes_are_explained_in_one_line(words, message, tmp_path, capsys):
    document = {"question": "?", "support": "", "distractor1": "a", "distractor2": "b", "distractor3": "c"}
    (tmp_path / "sciq.jsonl").write_text(json.dumps(document | {"correct_answer": "d"}) + "\n")
    (tmp_path / "boolq.jsonl").write_text("{}\n")
    (tmp_path / "lambada.jsonl").write_text('{"text": "a b"}\n{"text": \n')
    (tmp_path / "rte.jsonl").write_text("")
    places = {"missing": tmp_path / "missing", "data": tmp_path, "model": MODEL}
    assert main([word.format(**places) for word in words]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"c2r.evaluate: {message.format(**places)}")
    assert said.count("\n") == 1


def test_what_the_engine_refuses_is_said_in_its_words():
    with pytest.raises(ValueError, match=r"^c2r score: .*continuation must have a token$"):
        C2rLM(str(MODEL), threads=1).loglikelihood(requests(("text", "")))
    with pytest.raises(NotImplementedError, match="tasks that let a model write are not supported"):
        C2rLM(str(MODEL)).generate_until([])
    with pytest.raises(ValueError, match="has no argument batchsize"):
        C2rLM(str(MODEL), batchsize=3)
