"""What this machine's CPU reads and multiplies, as `--device auto` measures it, beside one thread of numpy alone.

python bench/machine.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from lamina.machine.here import cpu


def one_thread(nbytes: int = 1 << 28) -> float:
    """Bytes a second that one thread reads: the peer."""
    part = np.ones(nbytes // 4, np.float32)
    np.add.reduce(part)
    start = time.perf_counter()
    np.add.reduce(part)
    return nbytes / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found = [cpu() for _ in range(rounds)]
    alone = [one_thread() for _ in range(rounds)]
    print(found[0].title)
    print(f"all cores read   {statistics.median(d.bandwidth for d in found) / 1e9:6.1f} GB/s")
    print(f"one thread reads {statistics.median(alone) / 1e9:6.1f} GB/s")
    print(f"float32 products {statistics.median(d.peak['float32'] for d in found) / 1e9:6.1f} GFLOP/s")
    print(f"memory free      {found[0].memory / 1e9:6.1f} GB")


if __name__ == "__main__":
    main()
