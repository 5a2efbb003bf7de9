"""A program for a GPU: numbers in the place of vectors, a thread for each fit.

Three kernels, as the descent of lanes has three loops. The threads of a warp make their iterations
in lockstep, and one whose fit has ended takes the next by a counter that all share, so that none
waits for its neighbours. What is carried lies in memory number by number, each number of all fits
side by side, so that neighbours read and write neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .expressions import TRUTH
from .fields import STORED, Argument
from .shared import SHARED

BLOCK = 128  # threads of a block

NUMBERS = r"""
// Numbers of one fit. A compiler at run time has C's mathematics, and no header.
#ifdef __CUDACC_RTC__
typedef long long int64_t;
#define INT64_C(value) value##LL
#define NAN __longlong_as_double(0x7ff8000000000000LL)
#define INFINITY __longlong_as_double(0x7ff0000000000000LL)
#else
#include <cmath>
#include <cstdint>
#endif

typedef double D;
typedef float S;
typedef int64_t L;  // whole numbers, and truth: 0 or -1

#define INLINE static __device__ __forceinline__
#define OUTLINE static __device__ __noinline__
#define FUNCTION static __device__ __forceinline__

#define ONE(name)                                   \
  INLINE D name##_(D a) { return name(a); }         \
  INLINE S name##_(S a) { return name##f(a); }
#define TWO(name)                                   \
  INLINE D name##_(D a, D b) { return name(a, b); } \
  INLINE S name##_(S a, S b) { return name##f(a, b); }
ONE(log) ONE(sin) ONE(cos) ONE(tan) ONE(asin) ONE(acos) ONE(atan) ONE(sinh) ONE(cosh)
ONE(tanh) ONE(asinh) ONE(acosh) ONE(atanh) ONE(erf) ONE(erfc) ONE(log1p) ONE(expm1) ONE(log2)
ONE(log10) ONE(exp2) ONE(sqrt) ONE(fabs) ONE(floor) ONE(ceil) ONE(trunc) ONE(lgamma) ONE(exp)
TWO(pow) TWO(atan2) TWO(hypot)

#define ALIKE(T)                                                \
  INLINE L lt_(T a, T b) { return a < b ? -1 : 0; }             \
  INLINE L le_(T a, T b) { return a <= b ? -1 : 0; }            \
  INLINE L eq_(T a, T b) { return a == b ? -1 : 0; }            \
  INLINE L ne_(T a, T b) { return a != b ? -1 : 0; }            \
  INLINE T choose(L mask, T a, T b) { return mask ? a : b; }
ALIKE(D) ALIKE(S) ALIKE(L)
INLINE bool any_(L mask) { return mask != 0; }
INLINE D to_double(S a) { return a; }
INLINE D to_double(L a) { return a; }
INLINE S to_float(D a) { return a; }
INLINE S to_float(L a) { return a; }
INLINE L to_whole(D a) { return a; }
INLINE L to_whole(S a) { return a; }
"""

COLUMNS = r"""
// The numbers of a fit, so far apart in memory, and those that all fits share.
template <class T> struct Column { const T *first; int64_t apart; };
template <class V, class T> INLINE V lanes(const Column<T> &b, int64_t i) {
  return sizeof(T) == 1 ? V{} - b.first[i * b.apart] : V{} + b.first[i * b.apart];
}
template <class V, class T> INLINE V all(const T *b, int64_t i) {
  return sizeof(T) == 1 ? V{} - b[i] : V{} + b[i];
}
"""

PRELUDE = NUMBERS + SHARED

# what every kernel is given: for each argument its address, how far apart its fits are and how far
# the numbers of a fit; and the addresses of what is carried
DRIVER = r"""
#define GIVEN                                                                              \
  int64_t count, const int64_t *arguments, void *const *kept, int64_t *next, int64_t resumed, \
      int64_t limit, int64_t newton
INLINE int64_t number() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

// The starts. `resumed`: what is kept says where the first of several runs began.
extern "C" __global__ void __launch_bounds__(THREADS) first(GIVEN) {
  const int64_t fit = number();
  if (fit >= count) return;
  Data d;
  State p, q;
  Rest r, t;
  hold(d, arguments, fit);
  begin(d, p, r, q, t);
  if (resumed) take_begun(q, kept, fit);
  put(q, kept, fit);
}

// Iterations, until `limit` trials.
extern "C" __global__ void __launch_bounds__(THREADS) descend(GIVEN) {
  Data d;
  State p, q;
  Rest r, t;
  L running, trials;
  int64_t fit = -1;
  bool left = true;
  do {
    while (left && fit < 0) {
      fit = atomicAdd((unsigned long long *)next, 1ULL);
      left = fit < count;
      if (left && going(kept, fit, limit)) {
        hold(d, arguments, fit);
        take(p, kept, fit);
      } else {
        fit = -1;
      }
    }
    if (fit >= 0) {
      step(d, p, r, q, t);
      p = q;
      told(p, running, trials);
      if (!running || trials >= limit) {
        put(p, kept, fit);
        fit = -1;
      }
    }
  } while (__any_sync(0xffffffffu, left || fit >= 0));
}

// A look at the ends, and Newton steps where one is not sure and they may help.
extern "C" __global__ void __launch_bounds__(THREADS) last(GIVEN) {
  const int64_t fit = number();
  if (fit >= count) return;
  Data d;
  State p, q, before;
  Rest r, t;
  L running, trials;
  hold(d, arguments, fit);
  take(p, kept, fit);
  told(p, running, trials);
  if (running) return;
  look(d, p, r, q, t);
  for (int64_t steps = 0; steps <= newton && t.s0; steps++) {
    before = q;
    r = t;
    settle(d, before, r, q, t);
  }
  put(q, kept, fit);
}
"""


@dataclass(frozen=True)
class Threads:
    """A thread for each fit, so many in a block."""

    block: int = BLOCK
    pairs: ClassVar[bool] = False

    def before(self, data: Sequence[Argument]) -> str:
        """What stands in front, with how a number of an argument is read."""
        held = [
            f"  const {STORED[a.kind]} *b{i};" if a.shared else f"  Column<{STORED[a.kind]}> b{i};"
            for i, a in enumerate(data)
        ]
        return "\n".join(
            [f"#define THREADS {self.block}", PRELUDE, COLUMNS, "struct Data {", *held, "};"]
        )

    def after(self, data: Sequence[Argument], carried: Sequence[str], begun: Sequence[int]) -> str:
        """What brings numbers in and out, and the kernels."""
        return "\n\n".join([_holding(data), _storing(carried, begun), DRIVER])


def _holding(data: Sequence[Argument]) -> str:
    """Where the numbers of a fit are found."""
    lines = ["INLINE void hold(Data &d, const int64_t *arguments, int64_t fit) {"]
    for i, one in enumerate(data):
        first = f"(const {STORED[one.kind]} *)arguments[{3 * i}]"
        if one.shared:
            lines.append(f"  d.b{i} = {first};")
        else:
            lines.append(f"  d.b{i}.first = {first} + fit * arguments[{3 * i + 1}];")
            lines.append(f"  d.b{i}.apart = arguments[{3 * i + 2}];")
    return "\n".join([*lines, "}"])


def _storing(carried: Sequence[str], begun: Sequence[int]) -> str:
    """Puts the state of a fit where it is kept between kernels, and takes it back."""
    put = ["INLINE void put(const State &p, void *const *kept, int64_t fit) {"]
    take = ["INLINE void take(State &p, void *const *kept, int64_t fit) {"]
    for i, kind in enumerate(carried):
        at = f"(({STORED[kind]} *)kept[{i}])[fit]"
        put.append(f"  {at} = ({STORED[kind]})p.s{i};")
        take.append(f"  p.s{i} = {'-(int64_t)' if kind == TRUTH else ''}{at};")
    only = ["INLINE void take_begun(State &p, void *const *kept, int64_t fit) {"]
    only += [take[1 + i] for i in begun]
    return "\n".join("\n".join([*part, "}"]) for part in (put, take, only))
