#!/usr/bin/env python3
"""bench/search_sweep.py compares what `c2r plan` minimizes, and bench/plain_annealer.cc finds what a count of all
placements finds on tiny problems."""
import collections
import itertools
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import search_sweep

COMPILER = sys.argv.pop(1) if len(sys.argv) > 1 else "c++"


def plan_of(cluster, slots, predicted, **goal):
    return {"num_experts": 1 + max(itertools.chain(*slots)),
            "cluster": dict(zip(("num_nodes", "ranks_per_node"), cluster)), "layers": [{"slots": slots}],
            "predictions": [{}, predicted],
            "provenance": {"options": {"rank_copy_cost": 1.0, "node_copy_cost": 0.0, "max_imbalance": 1.1} | goal}}


class Costs(unittest.TestCase):
    def test_a_cover_has_the_fewest_ranks_and_then_the_fewest_nodes(self):
        for hosts, expected in [([{3}], (1, 1)), ([{0, 1}, {1, 2}, {2, 4}], (2, 2)),
                                ([{0, 2}, {1}], (2, 1)),  # rank 2 is on another node than rank 1
                                ([{0, 2}, {1, 2}], (1, 1)), ([{0}, {1}, {0, 2}, {1, 3}], (2, 1))]:
            self.assertEqual(search_sweep.smallest_cover(hosts, ranks_per_node=2), expected, hosts)

    def test_the_cost_counts_the_node_of_the_home(self):
        # Expert 0 is on both nodes, so its tokens never leave the node of their home, wherever that is. Three
        # tokens have ranks 1, 1 and 2 and nodes 1, 1 and 2.
        sets = [collections.Counter({(0,): 1, (0, 1): 1, (1, 2): 1})]
        predicted = {"copies_per_token": [4 / 3], "inter_node_copies_per_token": [1.5 / 3], "imbalance": [1.25]}
        plan = plan_of((2, 1), [[0, 1], [0, 2]], predicted, node_copy_cost=8.0)
        result = search_sweep.judge(plan, sets, seconds=2)
        self.assertAlmostEqual(result.cost, 4 / 3 + 8 * 4 / 3)
        self.assertAlmostEqual(result.excess, 0.15)
        self.assertEqual(result[2:], (1.25, 2))
        plan["predictions"][-1]["copies_per_token"] = [1.5]
        with self.assertRaisesRegex(ValueError, "layer 0: the plan has 1.5 copies a token, but .* gives 1.33"):
            search_sweep.judge(plan, sets, seconds=2)

    def test_the_cost_is_the_mean_of_copies_on_one_node_and_the_excess_a_sum(self):
        predicted = {"copies_per_token": [2.0, 3.0, 4.0], "imbalance": [1.2, 1.1 * (1 + 1e-12), 1.15]}
        result = search_sweep.judge(plan_of((1, 2), [[0], [1]], predicted), [{}] * 3, seconds=0)
        self.assertEqual((result.cost, result.worst_imbalance), (3, 1.2))
        self.assertAlmostEqual(result.excess, 0.15)

    def test_fewer_copies_above_the_bound_are_worse(self):
        def result(excess, cost, seconds=1.0):
            return search_sweep.Result(excess, cost, 1.1 + excess, seconds)

        def faults(less, more):
            return search_sweep.faults_of_row(10, [1, 2], [less, more])

        self.assertEqual(faults(result(0, 3), result(0, 3)), [])
        self.assertEqual(faults(result(0.1, 3), result(0, 4)), [])
        self.assertEqual(faults(result(0, 3), result(0, 3.5)), [
            "10 tokens: effort 2 is worse than 1: a cost of 3.5000, instead of a cost of 3.0000"])
        self.assertEqual(faults(result(0, 4), result(0.1, 3)), [
            "10 tokens: effort 2 is worse than 1: a cost of 3.0000, 0.1000 above the bound, instead of a cost of "
            "4.0000"])
        self.assertEqual(faults(result(0, 3), result(0, 3, 3.0)), [])
        self.assertEqual(faults(result(0, 3), result(0, 3, 4.0)), [
            "10 tokens: effort 2 takes 4.0 times as long as 1"])
        self.assertIn("1.200*", search_sweep.cell(result(0.1, 3)))
        self.assertIn("1.100 ", search_sweep.cell(result(0, 3)))


class Annealer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.program = pathlib.Path(folder.name) / "plain_annealer"
        subprocess.run([COMPILER, "-O2", "-std=c++20", ROOT / "bench/plain_annealer.cc", "-o", cls.program], check=True)

    def sets(self, num_experts, top_k, seed):
        rng = random.Random(seed)
        sets = collections.Counter()
        for _ in range(14):
            sets[tuple(sorted(rng.sample(range(num_experts), rng.randint(1, top_k))))] += rng.randint(1, 9)
        return sets

    def anneal(self, cluster, num_experts, sets, redundant_slots, **goal):
        plan = plan_of(cluster, [range(num_experts)], {}, redundant_slots=float(redundant_slots), **goal)
        return search_sweep.run_annealer(self.program, 1, 1, plan, [sets])

    def placements(self, cluster, num_experts, slots_per_rank):
        contents = itertools.combinations(range(num_experts), slots_per_rank)
        for slots in itertools.product(list(contents), repeat=cluster[0] * cluster[1]):
            if len(set(itertools.chain(*slots))) == num_experts:
                yield slots

    def least_cost(self, cluster, num_experts, sets, slots_per_rank, node_cost, is_allowed=lambda slots: True):
        def cost(slots):
            copies, node_copies = search_sweep.count_copies(slots, sets, cluster[1])
            return copies + node_cost * node_copies

        return min(cost(slots) for slots in self.placements(cluster, num_experts, slots_per_rank) if is_allowed(slots))

    def test_finds_the_fewest_copies_with_replicas(self):
        for seed in range(3):
            sets = self.sets(5, 4, seed)
            found = self.anneal((1, 3), 5, sets, 1, max_imbalance=9.0)
            self.assertAlmostEqual(found.cost, self.least_cost((1, 3), 5, sets, 3, 0), 5, f"seed {seed}")
            self.assertLess(found.cost, self.anneal((1, 3), 5, sets, 0, max_imbalance=9.0).cost, f"seed {seed}")

    def test_finds_the_least_weighted_cost_on_nodes(self):
        for seed in range(2):  # 5 experts in 4 x 2 slots: rounding leaves three to replicas
            sets = self.sets(5, 3, seed)
            found = self.anneal((2, 2), 5, sets, 0, node_copy_cost=3.0, max_imbalance=9.0)
            self.assertAlmostEqual(found.cost, self.least_cost((2, 2), 5, sets, 2, 3), 5, f"seed {seed}")

    def test_keeps_the_bound(self):
        for seed in range(3):
            sets, load = self.sets(6, 3, seed), collections.Counter()
            for experts, tokens in sets.items():
                load.update(dict.fromkeys(experts, tokens))

            def imbalance(slots):
                return max(sum(load[e] for e in rank) for rank in slots) * 3 / load.total()

            least = min(map(imbalance, self.placements((1, 3), 6, 2)))
            bound = least * 1.02
            found = self.anneal((1, 3), 6, sets, 0, max_imbalance=bound)
            expected = self.least_cost((1, 3), 6, sets, 2, 0, lambda slots: imbalance(slots) <= bound)
            self.assertAlmostEqual(found.cost, expected, 5, f"seed {seed}")
            self.assertLessEqual(found.worst_imbalance, bound + 1e-6)
            self.assertIsNone(self.anneal((1, 3), 6, sets, 0, max_imbalance=least * 0.99))

    def test_keeps_the_bound_with_replicas_when_all_sets_are_served_anew(self):
        for seed in range(1, 4):
            sets = self.sets(6, 3, seed)
            found = self.anneal((1, 3), 6, sets, 1, max_imbalance=1.05)
            self.assertLessEqual(found.worst_imbalance, 1.05 + 1e-6, f"seed {seed}")
            self.assertGreaterEqual(found.cost, self.least_cost((1, 3), 6, sets, 3, 0) - 1e-6, f"seed {seed}")

    def test_refuses_what_it_cannot_solve(self):
        for text in "5 1\n1 9 0 1 2 3 4 0 1 2 3\n", "5 1\n1 1 5\n", "5 2\n1 1 4\n", "":
            done = subprocess.run([self.program, "1", "2", "1", "0", "1.1", "1", "1"], input=text, text=True,
                                  capture_output=True)
            self.assertEqual((done.returncode, done.stdout), (1, ""), text)
            self.assertIn("the input is not", done.stderr)
        self.assertEqual(subprocess.run([self.program, "1"], capture_output=True).returncode, 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
