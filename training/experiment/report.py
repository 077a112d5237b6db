"""Tables and figures of the experiment from its records: python3 -m training.experiment.report -o docs

Writes the page `experiment.md` and its figures. Each folder of records is an experiment of its own.
"""

import argparse
import json
import pathlib
import sys
from typing import NamedTuple

from training.card import table
from training.experiment.compare import Paired, Point, at_copies, loss_difference, training_curve
from training.experiment.conditions import CONDITIONS, CURVES, UNTRAINED_CURVES, is_trained
from training.experiment.figures import Mark, Plot, Series, heat_maps, panels, square_of

RANKS = "4"  # of the figures, of times and of equal copies
Found = dict[str, list[dict]]  # the records of each condition, one for each seed


def read_records(folder: pathlib.Path) -> dict[int, Found]:
    """By how many tokens runs were trained on, the records of each condition in the order of CONDITIONS; those that were
    not trained are in all. Raises ValueError if two are not of one experiment.
    """
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise ValueError(f"{folder} has no records; python3 -m training.experiment.driver makes them")
    first = records[0]
    for record in records:
        for key in ("model", "length", "domains", "learning_rate"):
            if record[key] != first[key]:
                raise ValueError(f"the records of {first['condition']} and {record['condition']} have another {key}")
    lengths = sorted({record["trained_tokens"] for record in records} - {0}) or [0]
    return {
        length: {
            name: there
            for name in CONDITIONS
            if (there := [one for one in records if one["condition"] == name and one["trained_tokens"] in (0, length)])
        }
        for length in lengths
    }


def most_runs(by_length: dict[int, Found]) -> Found:
    """The records of the length that most runs have: what is compared but where lengths are."""
    return max(by_length.values(), key=lambda found: sum(map(len, found.values())))


def reference_of(found: Found, name: str) -> str | None:
    """What a condition is compared with: the model without the rule, trained as much; None if it has no record."""
    reference = "free" if is_trained(name) else "before"
    return reference if reference in found and reference != name else None


def shown(difference: Paired) -> str:
    return f"{difference.mean:+.4f} ± {difference.half_width:.4f}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def loss_table(found: Found) -> str:
    domains = sorted(set(all_domains := next(iter(found.values()))[0]["domains"]), key=all_domains.index)
    rows = []
    for name, records in found.items():
        loss = _mean([_mean(record["losses"]) for record in records])
        since = shown(loss_difference(records, found["before"])) if "before" in found and name != "before" else ""
        reference = reference_of(found, name)
        differences = [
            "" if reference is None else shown(loss_difference(records, found[reference], domain))
            for domain in (None, *domains)
        ]
        rows.append([name, str(len(records)), f"{loss:.4f}", since, *differences])
    return table(["condition", "seeds", "loss", "minus before", "minus free", *domains], rows)


def _traffic(records: list[dict], ranks: str, step: str, key: str) -> float:
    return _mean([record["traffic"][ranks][step][key] for record in records])


def traffic_table(found: Found, ranks: str) -> str:
    steps = ("per-expert", "deduplication", "placement", "one slot")
    rows = [
        [name, *(f"{_traffic(records, ranks, step, 'copies_per_token'):.3f}" for step in steps),
         f"{_traffic(records, ranks, 'placement', 'imbalance'):.3f}",
         f"{_traffic(records, ranks, 'one slot', 'imbalance'):.3f}"]
        for name, records in found.items()
    ]  # fmt: skip
    return table(["condition", *steps, "imbalance, placed", "with one slot"], rows)


def time_table(found: Found) -> str:
    """Predicted times of a layer over that of per-expert sending in the first condition, by link."""
    first = next(iter(found.values()))
    links = list(first[0]["layer_time_s"])
    steps = ("per-expert", "deduplication", "placement", "overlap")
    whole = {link: _mean([record["layer_time_s"][link]["per-expert"] for record in first]) for link in links}
    rows = [
        [name, *(f"{_mean([r['layer_time_s'][link][step] for r in records]) / whole[link]:.3f}" for link in links
                 for step in steps)]
        for name, records in found.items()
    ]  # fmt: skip
    return table(["condition", *(f"{link}: {step}" for link in links for step in steps)], rows)


def specialization_table(found: Found) -> str:
    """Also the experts of a batch of decoding, and T of each layer where it was chosen."""
    rows = []
    for name, records in found.items():
        layers = list(zip(*(record["effective_collaborators"] for record in records), strict=True))
        distinct = _mean([record["distinct_experts_of_8_tokens"] for record in records])
        top_t = records[0].get("top_t")
        rows.append([name, *(f"{_mean(layer):.1f}" for layer in layers), f"{distinct:.2f}",
                     ", ".join(map(str, top_t)) if top_t else ""])  # fmt: skip
    return table(
        ["condition", *(f"layer {n}" for n in range(len(rows[0]) - 3)), "distinct experts", "T by layer"], rows
    )


def _with_tasks(by_length: dict[int, Found]) -> dict[tuple[str, int], list[dict]]:
    """By condition and tokens of training, the records that have tasks; of models that were not trained once."""
    found: dict[tuple[str, int], list[dict]] = {}
    for of_length in by_length.values():
        for name, records in of_length.items():
            if some := [record for record in records if "tasks" in record]:
                found[name, some[0]["trained_tokens"]] = some
    return found


def task_table(by_length: dict[int, Found]) -> str:
    """Means over seeds; standard errors are over documents, which all conditions share. LAMBADA's is its accuracy."""
    with_tasks = _with_tasks(by_length)
    if not with_tasks:
        return ""
    first = next(iter(with_tasks.values()))[0]["tasks"]
    rows = []
    for (name, tokens), records in with_tasks.items():
        cells = []
        for task in first:
            accuracy = 100 * _mean([record["tasks"][task]["acc"] for record in records])
            error = 100 * _mean([record["tasks"][task]["acc_stderr"] for record in records])
            cells.append(f"{accuracy:.1f} ± {error:.1f}")
        perplexity = [" ± ".join(f"{_mean([record['tasks'][task][key] for record in records]):.0f}"
                                 for key in ("perplexity", "perplexity_stderr"))
                      for task in first if "perplexity" in first[task]]  # fmt: skip
        ten = [_mean([record["tasks"][task]["acc"] for task in first if "perplexity" not in first[task]])
               for record in records]  # fmt: skip
        engines = ", ".join(sorted({record["tasks_engine"] for record in records}))
        rows.append([name, f"{tokens:,}", str(len(records)), *cells, *perplexity, f"{100 * _mean(ten):.2f}", engines])
    perplexities = [f"{task}, perplexity" for task in first if "perplexity" in first[task]]
    counts = [f"{task} ({first[task]['documents']})" for task in first]
    return table(["condition", "tokens", "seeds", *counts, *perplexities, "mean without LAMBADA", "run by"], rows)


def point(found: Found, name: str, step: str = "placement") -> Point:
    records = found[name]
    reference = reference_of(found, name)
    difference = Paired(0.0, 0.0) if reference is None else loss_difference(records, found[reference])
    copies, imbalance = (_traffic(records, RANKS, step, key) for key in ("copies_per_token", "imbalance"))
    distinct = _mean([record["distinct_experts_of_8_tokens"] for record in records])
    return Point(name, copies, imbalance, distinct, difference)


def curves(found: Found) -> dict[str, list[Point]]:
    """The curves of conditions.py that have three points here; each with the routing that is free at its end."""
    result = {}
    for family, end in ((CURVES, "free"), (UNTRAINED_CURVES, "before")):
        for name, members in family.items():
            there = [point(found, member) for member in members if member in found]
            if len(there) >= 3 and end in found:
                result[name] = sorted([*there, point(found, end)], key=lambda one: one.copies)
    return result


def equal_copies_table(of_curves: dict[str, list[Point]]) -> str:
    """Differences of loss at equal copies, at tenths of a copy; empty where a curve does not go."""
    copies = [one.copies for curve in of_curves.values() for one in curve]
    levels = [tenth / 10 for tenth in range(int(10 * min(copies)) + 1, int(10 * max(copies)) + 1, 2)]
    rows = []
    for name, curve in of_curves.items():
        values = [at_copies(curve, level) for level in levels]
        rows.append([name, str(len(curve) - 1), *("" if value is None else f"{value:+.4f}" for value in values)])
    return table(["loss difference at copies per token:", "points", *(f"{level:.1f}" for level in levels)], rows)


def _series(found: Found) -> list[tuple[Series, list[Point]]]:
    """Every condition in one of the series, whose marks are still to be made of the points; and replicas alone."""
    of_curves = curves(found)
    in_curves = {one.name for curve in of_curves.values() for one in curve}
    result = [(Series(name, [], True, name in CURVES), curve) for name, curve in of_curves.items()]
    rest = [point(found, name) for name in found if name not in in_curves]
    for title, is_untrained in (("others", False), ("others, untrained", True)):
        there = [one for one in rest if is_trained(one.name) != is_untrained]
        result.append((Series(title, [], False, not is_untrained), there))
    if "before" in found:
        replicas = point(found, "before", "one slot")._replace(name="a replica on each rank")
        result.append((Series("the model before, with replicas", [], False, False), [replicas]))
    return [(series, there) for series, there in result if there]


def front(found: Found) -> str:
    """Difference of loss against copies, imbalance and distinct experts."""
    plots = []
    for title, key in (("copies per token at 4 ranks, placed", "copies"), ("imbalance, placed", "imbalance"),
                       ("distinct experts of 8 tokens", "distinct")):  # fmt: skip
        of_panel = []
        for series, there in _series(found):
            marks = [Mark(getattr(one, key), one.loss.mean, one.loss.half_width,
                          one.name.removesuffix(", untrained") if key == "copies" else "") for one in there]  # fmt: skip
            of_panel.append(series._replace(marks=marks, has_line=series.has_line and key == "copies"))
        plots.append(Plot(title, "loss minus that of free routing, nats", of_panel))
    return panels(plots, width=400, height=420)


class Length(NamedTuple):
    """A condition after so many tokens of training."""

    name: str
    tokens: int
    seeds: int
    since: Paired | None  # loss minus the model before
    of_rule: Paired | None  # minus free routing that was trained as much
    last: float | None  # the latter in the training losses, of the last quarter of the run


def lengths(by_length: dict[int, Found]) -> list[Length]:
    """Of each condition that was trained for several lengths; first as it is without training."""
    names = [name for name in CONDITIONS if sum(name in found and is_trained(name) for found in by_length.values()) > 1]
    rows = []
    for name in names:
        first = next(iter(by_length.values()))
        if (untrained := f"{name}, untrained") in first:
            rows.append(_length(first, untrained, name, 0))
        rows += [_length(found, name, name, tokens) for tokens, found in by_length.items() if name in found]
    return rows


def _length(found: Found, member: str, name: str, tokens: int) -> Length:
    since = loss_difference(found[member], found["before"]) if "before" in found and member != "before" else None
    reference = reference_of(found, member)
    of_rule = loss_difference(found[member], found[reference]) if reference else None
    last = None
    if tokens and reference:
        values = [value for _, value in training_curve(found[member], found[reference])]
        last = _mean(values[-(len(values) // 4 or 1) :])
    return Length(name, tokens, len(found[member]), since, of_rule, last)


def length_table(rows: list[Length]) -> str:
    cells = [
        [one.name, f"{one.tokens:,}", str(one.seeds), *("" if value is None else shown(value) for value in one[3:5]),
         "" if one.last is None else f"{one.last:+.4f}"]
        for one in rows
    ]  # fmt: skip
    return table(["condition", "tokens", "seeds", "minus before", "minus free", "training loss, last quarter"], cells)


def length_figure(rows: list[Length]) -> str:
    """Both differences against tokens; a condition has no mark where it has no reference."""
    plots = []
    for title, key in (("minus the model before", "since"), ("minus that of free routing", "of_rule")):
        series = {name: Series(name, []) for name in dict.fromkeys(one.name for one in rows)}
        for one in rows:
            difference = getattr(one, key)
            if difference is not None:
                series[one.name].marks.append(Mark(one.tokens / 1000, difference.mean, difference.half_width))
        if any(one.marks for one in series.values()):
            plots.append(Plot("thousand tokens of training", f"loss {title}, nats", list(series.values())))
    return panels(plots, width=480, height=360)


def training_figure(found: Found) -> str:
    """The difference of training losses from the free run while the models are trained; empty if nothing was."""
    names = [name for name in found if CONDITIONS[name].trained == "all" and not CONDITIONS[name].penalty]
    if "free" not in names or len(names) == 1:
        return ""
    free = found["free"]
    a_step = free[0]["trained_tokens"] / free[0]["training_loss"][-1][0] / 1000
    series = [
        Series(name, [Mark(step * a_step, value) for step, value in training_curve(found[name], free)])
        for name in names
        if name != "free"
    ]
    plot = Plot("thousand tokens of training", "training loss minus that of free routing, nats", series)
    return panels([plot], width=640, height=380)


def specialization_figure(found: Found) -> str:
    """Heat maps of the second layer before, and trained without and with the constraint, of the least seed."""
    names = [name for name in ("before", "free", "T=16", "T=8", "T=4", "T=2") if name in found]
    maps = {name: found[name][0]["pairs_of_second_layer"] for name in names}
    return heat_maps(maps, _neighbours(maps[names[-1]]))


def _neighbours(pairs: list[int]) -> list[int]:
    """An order that puts each expert after the one that it collaborates with most, of those that are left."""
    matrix = square_of(pairs)
    order = [max(range(len(matrix)), key=lambda expert: sum(matrix[expert]))]
    while len(order) < len(matrix):
        left = [expert for expert in range(len(matrix)) if expert not in order]
        order.append(max(left, key=lambda expert: matrix[order[-1]][expert]))
    return order


def head(found: Found, by_length: dict[int, Found]) -> str:
    records = [record for some in found.values() for record in some]
    first, trained = records[0], [record for record in records if record["trained_tokens"]]
    tokens = max((record["trained_tokens"] for record in trained), default=0)
    longer = [record for of in by_length.values() if of is not found for some in of.values() for record in some
              if record["trained_tokens"]]  # fmt: skip
    others = f" {len(longer)} runs of other lengths are in a table of their own." if longer else ""
    minutes = sum(record["minutes"] for record in [*records, *longer])
    return (
        f"{len(first['domains'])} held-out documents of {first['length']} tokens. {len(trained)} runs trained on "
        f"{tokens:,} tokens each, at learning rate {first['learning_rate']:g}; {len(records) - len(trained)} records are "
        f"of models that were not trained.{others} {first['machine']}; {minutes:.0f} minutes by the clock, beside other work."
    )


def section(folder: pathlib.Path, output: pathlib.Path) -> str:
    """The tables of one experiment; writes its figures."""
    by_length, name = read_records(folder), folder.name
    found, of_lengths = most_runs(by_length), lengths(by_length)
    drawn = {"front": front(found), "training": training_figure(found), "specialization": specialization_figure(found),
             "lengths": length_figure(of_lengths) if of_lengths else ""}  # fmt: skip
    for figure, text in drawn.items():
        if text:
            (output / f"{name}_{figure}.svg").write_text(text)
    parts = [f"## {name}", head(found, by_length), FRONT, f"![Loss against traffic]({name}_front.svg)"]
    if of_curves := curves(found):
        parts += [EQUAL, equal_copies_table(of_curves)]
    if drawn["training"]:
        parts += [TRAINING, f"![Training]({name}_training.svg)"]
    if of_lengths:
        parts += [LENGTHS, f"![Lengths]({name}_lengths.svg)", length_table(of_lengths)]
    parts += [HEAT, f"![Collaboration]({name}_specialization.svg)"]
    parts += [LOSS, loss_table(found)]
    if tasks := task_table(by_length):
        parts += [TASKS, tasks]
    for ranks in ("2", "4", "8"):
        parts += [f"{TRAFFIC} at {ranks} ranks:", traffic_table(found, ranks)]
    parts += [SPECIALIZATION, specialization_table(found), TIMES, time_table(found)]
    return "\n\n".join(parts)


FRONT = """Difference of held-out loss from free routing that was trained as much (filled) or as little (hollow), with 95 %
intervals, against copies per token, imbalance and the distinct experts of 8 tokens of different documents. Replicas have
one more slot on each rank:"""
EQUAL = """At equal copies per token (4 ranks, placed), read off straight lines between the points of a curve, which ends
at free routing. *Points* counts those of the rule:"""
TRAINING = "The difference of training losses at the same text. No text is seen twice, so it is a held-out loss, too:"
LENGTHS = """How much training wins the loss back: the difference of held-out loss from the model before, and from free
routing that was trained on as many tokens, after runs of several lengths (each with a schedule of its own), with 95 %
intervals as below; and the latter in the training losses of the last quarter of the run, the mean over seeds:"""
HEAT = """How often experts of the second layer were chosen together on the held-out documents: row e is the share of
its partners, white none and black a quarter or more. All maps have the order of the last one:"""
LOSS = """Held-out loss in nats per token, and its paired differences: from the model before, and from free routing that was
trained as much (in all, and by domain), with 95 % intervals over documents and, where there are several, over seeds:"""
TASKS = """Accuracies in %, with standard errors over documents; means over seeds. The number of documents is in
parentheses; *tokens* are those of the training:"""
TRAFFIC = """Copies per token, means over layers and seeds; placements are fitted on half of the documents and counted on
the others;"""
SPECIALIZATION = """With how many others an expert effectively works (the exponential of the entropy, docs/metrics.md), by
layer; distinct experts per layer of 8 tokens of different documents; and T of each layer where it was chosen:"""
TIMES = """Predicted time of a layer with the shape of Qwen1.5-MoE (hidden 2048, intermediate 1408) that routes as these
models, on 4 A100s of 312 TFLOP/s, over the time of per-expert sending in the first row. NVLink: 600 GB/s. *overlap* is
the placement with communication and experts overlapped:"""
INTRO = """# The constraint on small models: all numbers

`python3 -m training.experiment.report -o docs` makes this page and its figures from the records in
[training/experiment/records](../training/experiment/records); [results.md](results.md) says what they mean."""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m training.experiment.report", description=__doc__)
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("training/experiment/records"))
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("docs"), metavar="FOLDER")
    arguments = parser.parse_args(words)
    try:
        folders = sorted(path for path in arguments.records.glob("*") if path.is_dir())
        if not folders:
            raise ValueError(f"{arguments.records} has no folders of records; training.experiment.driver makes them")
        sections = [section(folder, arguments.output) for folder in folders]
    except (OSError, ValueError) as error:
        print(f"training.experiment.report: {error}", file=sys.stderr)
        return 1
    (arguments.output / "experiment.md").write_text("\n\n".join([INTRO, *sections]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
