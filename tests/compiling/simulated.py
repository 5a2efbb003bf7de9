"""CUDA on a CPU: the kernels of a program as C++, with a loop in the place of its threads."""

import ctypes
from collections.abc import Sequence

import torch

from lmtorch.compiling import building

# A warp of one thread is what a loop over threads is: none waits for another.
BEFORE = r"""
#include <cmath>
#include <cstdint>
#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(threads)
struct Place { int x; };
static thread_local Place blockIdx, blockDim, threadIdx;
static inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long more) {
  return __atomic_fetch_add(at, more, __ATOMIC_RELAXED);
}
static inline bool __any_sync(unsigned, bool one) { return one; }
"""
AFTER = r"""
#define LAUNCH(name)                                                                  \
  extern "C" void launch_##name(int64_t blocks, int64_t threads, const int64_t *v) {  \
    blockDim.x = threads;                                                             \
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)                           \
      for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)                     \
        name(v[0], (const int64_t *)v[1], (void *const *)v[2], (int64_t *)v[3], v[4], \
             v[5], v[6]);                                                             \
  }
LAUNCH(first) LAUNCH(descend) LAUNCH(last)
"""


class Simulated:
    """Kernels on the CPU."""

    def __init__(self, text: str) -> None:
        self.library = building.build(BEFORE + text + AFTER)

    def launch(self, name: str, blocks: int, threads: int, values: Sequence[int]) -> None:
        """Run a kernel, thread after thread."""
        call = getattr(self.library, f"launch_{name}")
        call(
            ctypes.c_int64(blocks), ctypes.c_int64(threads),
            (ctypes.c_int64 * len(values))(*values),
        )  # fmt: skip


def module(text: str, device: torch.device) -> Simulated:
    """In the place of `lmtorch.compiling.modules.module`."""
    assert device.type == "cpu"
    return Simulated(text)
