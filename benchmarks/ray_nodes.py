"""A Ray cluster on this machine whose nodes come and go, for `cluster.py` and the tests.

Reads lines: `add` starts a node with room for one worker and prints its id, `kill ID` kills one as
a power cut does. The first line printed is the cluster's address. Its head has room for no worker.

    python benchmarks/ray_nodes.py
"""

import subprocess
import sys
from collections.abc import Mapping

SMALL = {"object_store_memory": 80_000_000}  # nothing goes through it


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    print("at", cluster.address, flush=True)
    nodes = {}
    for line in sys.stdin:
        what, *which = line.split()
        if what == "add":
            node = cluster.add_node(num_cpus=1, **SMALL)
            nodes[node.node_id] = node
            print("at", node.node_id, flush=True)
        else:
            cluster.remove_node(nodes.pop(which[0]), allow_graceful=False)
            print("at", which[0], flush=True)
    cluster.shutdown()


class Nodes:
    """A cluster in a process of its own, which Ray may fill with threads and handlers."""

    def __init__(self, count: int, environment: Mapping[str, str]) -> None:
        """Start it with so many nodes."""
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()
        self.living = [self._tell("add") for _ in range(count)]

    def replace(self, node: str) -> None:
        """Kill a node, and start another."""
        self._tell("kill", node)
        self.living.remove(node)
        self.living.append(self._tell("add"))

    def end(self) -> None:
        """End all nodes."""
        self._process.communicate(timeout=120)

    def _tell(self, *words: str) -> str:
        assert self._process.stdin
        print(*words, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("at "):  # Ray prints lines of its own
                return line.split()[1]
        raise RuntimeError("the Ray cluster has ended")


def node_of(log: str) -> str:
    """Return the node of the worker that said last where it is, in what `--verbose` prints."""
    lines = [line for line in log.splitlines() if " is on node " in line]
    return lines[-1].split(" is on node ")[1]


if __name__ == "__main__":
    main()
