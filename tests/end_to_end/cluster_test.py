#!/usr/bin/env python3
"""tools/cluster.sh: a cluster of namespaces comes up, carries MPI at its bandwidth, and goes away.

  cluster_test.py PROGRAM    PROGRAM: transport_mpi_bench, built with Open MPI

Exits with 77, which CTest calls skipped, where network namespaces are not permitted.
"""
import os
import pathlib
import subprocess
import sys
import time
import unittest

CLUSTER = pathlib.Path(__file__).resolve().parents[2] / "tools" / "cluster.sh"
PROGRAM = sys.argv.pop(1)
NAME = f"c2rtest{os.getpid()}"
GONE_S = 60  # far more than removing a cluster takes


def cluster(*arguments):
    return subprocess.run([CLUSTER, *arguments], env={**os.environ, "C2R_CLUSTER": NAME}, text=True,
                          capture_output=True, timeout=200, check=False)


def namespaces():
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.startswith(NAME)]


def namespaces_are_permitted():
    try:
        subprocess.run(["ip", "netns", "add", f"{NAME}-try"], check=True, capture_output=True)
        try:  # in a chroot they can be made, but not entered
            subprocess.run(["ip", "netns", "exec", f"{NAME}-try", "true"], check=True,
                           capture_output=True)
        finally:
            subprocess.run(["ip", "netns", "del", f"{NAME}-try"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class Cluster(unittest.TestCase):
    def tearDown(self):
        cluster("down")

    def check_gone(self):
        deadline = time.monotonic() + GONE_S
        while namespaces() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual(namespaces(), [])

    def test_limits_what_a_node_exchanges(self):
        up = cluster("up", "2x2", "--link", "400", "--node", "200", "--seconds", "300")
        self.assertEqual(up.returncode, 0, up.stderr)
        self.assertIn("4 hosts in 2 nodes", up.stdout)
        run = cluster("run", PROGRAM, "2", "1")
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        # Of each 3 parts that a rank sends, 2 leave the node, over a link that 2 ranks share: at most
        # 3/4 of 25 MB/s. Twice that, since the buckets (0.2 MB of 4 MB) are full at first.
        rates = [float(line.split()[-1]) for line in run.stdout.splitlines()[2:5]]  # MB/s
        self.assertEqual(len(rates), 3, run.stdout)
        self.assertLess(max(rates), 2 * 0.75 * 25, run.stdout)
        self.assertEqual(cluster("limit", "--link", "30", "--node", "20").returncode, 0)
        for namespace, device, rate in (("0", "eth0", 30), ("switch", "to-3", 30), ("switch", "up1", 20)):
            shown = subprocess.run(["ip", "netns", "exec", f"{NAME}-{namespace}", "tc", "qdisc", "show", "dev", device],
                                   capture_output=True, text=True, check=True)
            self.assertIn(f"rate {rate}Mbit", shown.stdout)
        self.assertEqual(cluster("down").returncode, 0)
        self.assertEqual(namespaces(), [])

    def test_removes_itself_when_its_time_is_over(self):
        self.assertEqual(cluster("up", "1x1", "--link", "1", "--node", "1", "--seconds", "1")
                         .returncode, 0)
        self.check_gone()

    def test_removes_what_a_killed_up_has_built(self):
        up = subprocess.Popen([CLUSTER, "up", "40x4", "--link", "1", "--node", "1"],
                              env={**os.environ, "C2R_CLUSTER": NAME}, stdout=subprocess.DEVNULL)
        while len(namespaces()) < 2:
            self.assertIsNone(up.poll())
        up.kill()
        up.wait()
        self.check_gone()

    def test_says_what_is_wrong(self):
        run = cluster("run", "true")
        self.assertEqual((run.returncode, run.stderr), (
            1, f"cluster: the cluster {NAME} is not up; tools/cluster.sh up makes one\n"))
        self.assertEqual(cluster("limit", "--link", "1", "--node", "1").returncode, 1)
        for arguments in (["limit"], ["up", "2"], ["up", "2x2"], ["up", "2x2", "--link", "x", "--node", "1"],
                          ["up", "2x2", "--link", "1"], ["fly"], []):
            self.assertEqual(cluster(*arguments).returncode, 2, arguments)
        self.assertEqual(namespaces(), [])


if __name__ == "__main__":
    if not namespaces_are_permitted():
        print("skipped: network namespaces are not permitted")
        sys.exit(77)
    unittest.main(verbosity=2)
