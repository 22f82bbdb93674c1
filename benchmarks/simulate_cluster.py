"""A stage of images over 1,000 workers, simulated: failures, stragglers and a slow store.

Discrete events: a worker takes a shard, and ends it or dies. It takes shards as `engine/shards.py`
has it: its own first, every N-th, then those that nobody works on. A shard of a worker that died is
open again, and what it has of files stays; a worker comes back after a while. The store is one pipe
that moves so many bytes a second for all, and answers so many looks at files a second. The ideal
is the work divided by the workers' speeds. Seeded: the same command prints the same table.

    python benchmarks/simulate_cluster.py                          # the table of docs/scaling.md
    python benchmarks/simulate_cluster.py --images 100000000 --shard 64 --store 20000
"""

import argparse
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, replace

HOUR = 3600.0


@dataclass(frozen=True)
class Cluster:
    """What a stage meets.

    seconds: processor time of an image, with `spread` (standard deviation of its logarithm).
    failures: of each worker in an hour. away: seconds until it is back. slow: part of the workers
    that have `slowness` of the others' speed. store: MB/s of all together; 0: no limit. traffic: MB
    that an image reads and writes. looks: at files a second of all together; 0: no limit.
    takes_over: whether a worker goes on with others' shards. lists: whether it finds out by one
    listing of the records which shards are done, or by a look at each image.
    """

    images: int
    shard: int
    workers: int
    seconds: float
    spread: float = 0.5
    failures: float = 0.0
    away: float = 300.0
    slow: float = 0.0
    slowness: float = 0.3
    store: float = 0.0
    traffic: float = 0.25
    looks: float = 0.0
    takes_over: bool = True
    lists: bool = True


@dataclass(frozen=True)
class Result:
    """Seconds on the wall against the ideal; shards begun again; of the last to end, the wait."""

    wall: float
    ideal: float
    again: int

    @property
    def efficiency(self) -> float:
        """The ideal over the wall."""
        return self.ideal / self.wall


def simulate(cluster: Cluster, seed: int) -> Result:
    """Let a cluster do a stage."""
    draw = random.Random(seed)
    count = math.ceil(cluster.images / cluster.shard)
    left = [float(min(cluster.shard, cluster.images - i * cluster.shard)) for i in range(count)]
    # By the worker whose own they are.
    open_shards = [deque(range(i, count, cluster.workers)) for i in range(cluster.workers)]
    opened = count
    speeds = [
        cluster.slowness if draw.random() < cluster.slow else 1.0 for _ in range(cluster.workers)
    ]
    dies = [_until_death(cluster, draw) for _ in speeds]
    pipe = desk = 0.0  # when the store has moved all bytes, and answered all looks, asked so far
    wall, again, done = 0.0, 0, 0
    events: list[tuple[float, int, int, float]] = []  # time, worker, shard it had or -1, made of it

    def looked(now: float, looks: float) -> float:
        nonlocal desk
        if not cluster.looks:
            return now
        desk = max(desk, now) + looks / cluster.looks
        return desk

    for worker in range(cluster.workers):
        # Who begins looks at what is there: a listing gives about a thousand names at once.
        looks = cluster.images if not cluster.lists or worker == 0 else count / 1000
        heapq.heappush(events, (looked(0.0, looks), worker, -1, 0.0))
    idle: list[int] = []
    while events:
        now, worker, had, made = heapq.heappop(events)
        if had >= 0:
            left[had] -= made
            if left[had] > 0.5:
                again += 1
                opened += 1
                open_shards[had % cluster.workers].appendleft(had)
                while idle and opened:
                    heapq.heappush(events, (now, idle.pop(), -1, 0.0))
                dies[worker] = now + cluster.away + _until_death(cluster, draw)
                heapq.heappush(events, (now + cluster.away, worker, -1, 0.0))
                continue
            done += 1
            wall = max(wall, now)
            if done == count:
                break
        shard = _take(open_shards, worker, cluster)
        if shard is None:
            idle.append(worker)
            continue
        opened -= 1
        images = round(left[shard])
        # Two rounds of looks at the images of a shard: before its lock, and with it.
        begin = looked(now, 2 * images)
        noise = math.exp(draw.gauss(0, cluster.spread / math.sqrt(images)))
        end = begin + images * cluster.seconds * noise / speeds[worker]
        if cluster.store:
            pipe = max(pipe, begin) + images * cluster.traffic / cluster.store
            end = max(end, pipe)
        part = 1.0
        if dies[worker] < end:
            part = max(0.0, dies[worker] - begin) / (end - begin)
            end = max(begin, dies[worker])
        made = images if part >= 1 else min(images - 1, math.floor(part * images))
        heapq.heappush(events, (end, worker, shard, float(made)))
    ideal = cluster.images * cluster.seconds / sum(speeds)
    return Result(wall, ideal, again)


def _until_death(cluster: Cluster, draw: random.Random) -> float:
    return draw.expovariate(cluster.failures / HOUR) if cluster.failures else math.inf


def _take(open_shards: list[deque[int]], worker: int, cluster: Cluster) -> int | None:
    for step in range(cluster.workers if cluster.takes_over else 1):
        found = open_shards[(worker + step) % cluster.workers]
        if found:
            return found.popleft()
    return None


def main() -> None:
    arguments = read_arguments()
    still = Cluster(
        arguments.images,
        arguments.shard,
        arguments.workers,
        arguments.seconds,
        traffic=arguments.traffic,
    )
    failing = replace(still, failures=arguments.failures)
    stragglers = replace(failing, slow=0.05)
    store = replace(stragglers, store=arguments.store, looks=arguments.looks)
    rows = (
        ("nothing goes wrong", still),
        (f"each worker dies {arguments.failures:g} times an hour, for 5 minutes", failing),
        ("and one in twenty has 0.3 of the speed", stragglers),
        ("the same, each worker its own shards only", replace(stragglers, takes_over=False)),
        ("the same, shards of 1,024 images", replace(stragglers, shard=1024)),
        (f"and a store of {arguments.store:g} MB/s, {arguments.looks:g} looks a second", store),
        ("the same, every worker looks at every image", replace(store, lists=False)),
    )
    work = still.images * still.seconds / HOUR
    print(
        f"{still.images:,} images of {still.seconds:g} s, {still.workers:,} workers of one core, "
    )
    print(f"shards of {still.shard}: {work:,.0f} core-hours\n")
    print("| | wall | ideal | efficiency | shards begun again |")
    print("|---|---|---|---|---|")
    for name, cluster in rows:
        found = simulate(cluster, arguments.seed)
        print(
            f"| {name} | {found.wall / 60:,.1f} min | {found.ideal / 60:,.1f} min | "
            f"{found.efficiency:.0%} | {found.again:,} |",
            flush=True,
        )


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000_000, help="of the stage")
    parser.add_argument("--shard", type=int, default=64, help="images of a shard")
    parser.add_argument("--workers", type=int, default=1000, help="of one core each")
    parser.add_argument("--seconds", type=float, default=0.68, help="processor time of an image")
    parser.add_argument("--failures", type=float, default=0.5, help="of a worker in an hour")
    parser.add_argument("--store", type=float, default=300.0, help="MB/s of all workers together")
    parser.add_argument("--traffic", type=float, default=0.25, help="MB read and written an image")
    parser.add_argument("--looks", type=float, default=20_000.0, help="at files a second, of all")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    return parser.parse_args()


if __name__ == "__main__":
    main()
