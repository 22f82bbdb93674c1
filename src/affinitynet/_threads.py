"""How OpenMP's threads wait for work; imported before torch, whose OpenMP reads it once."""

import os

# Threads that are out of work spin for milliseconds by default, to start sooner when more comes.
# On a machine with other work they spin on cores that this work needs: a training on two busy
# cores took several times as long (benchmarks/openmp_wait.py). Loading processes inherit it.
# libgomp (Linux) spins zero times under PASSIVE, libomp (macOS, Windows) blocks after zero ms.
_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

if not any(name in os.environ for name in _POLICIES):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
