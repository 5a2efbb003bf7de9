"""A program for CPUs, in C++: W fits side by side in vectors, each in a lane of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .expressions import TRUTH
from .fields import STORED, Argument
from .prelude import DRIVER, PRELUDE


@dataclass(frozen=True)
class Lanes:
    """So many fits side by side; 0: as many float64 as a register of the machine holds."""

    width: int = 0
    pairs: ClassVar[bool] = True

    def before(self, data: Sequence[Argument]) -> str:
        """What stands in front, with how a number of an argument is read."""
        buffers = "\n".join(
            f"  const {STORED[a.kind]} *b{i};" if a.shared else f"  {STORED[a.kind]} (*b{i})[W];"
            for i, a in enumerate(data)
        )
        width = f"#define W {self.width}" if self.width else WIDEST
        return "\n\n".join([width, PRELUDE, f"struct Data {{\n{buffers}\n}};", READING])

    def after(self, data: Sequence[Argument], carried: Sequence[str], begun: Sequence[int]) -> str:
        """What brings numbers in and out, and the loops around the blocks."""
        return "\n\n".join([_loading(data), _storing(carried, begun), DRIVER])


# GCC takes apart what is longer than a register, comparisons and choices number by number: eight
# float64 on a machine whose registers hold four took nine times the instructions (GCC 12)
WIDEST = """#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define W 8
#elif defined(__AVX2__)
#define W 4
#else
#define W 2
#endif"""

# a number of each fit, from its lane, and what all share
READING = """
template <class V, class T> INLINE V lanes(const T (*b)[W], int64_t i) {
  V r;
  if constexpr (sizeof(T) == sizeof(r[0]))
    std::memcpy(&r, b[i], sizeof(V));
  else
    for (int l = 0; l < W; l++) r[l] = -(int64_t)b[i][l];  // truth
  return r;
}
template <class V, class T> INLINE V all(const T *b, int64_t i) {
  return sizeof(T) == 1 ? V{} - b[i] : V{} + b[i];
}"""


def _loading(data: Sequence[Argument]) -> str:
    """Brings what belongs to a fit into its lane."""
    lines = [
        "static void load(Data &d, const void *const *arguments, int lane, int64_t fit) {",
    ]
    for i, one in enumerate(data):
        if not one.shared:
            lines.append(
                f"  {{ const {STORED[one.kind]} *from = (const {STORED[one.kind]} *)arguments[{i}] "
                f"+ fit * {one.size}; for (int64_t j = 0; j < {one.size}; j++) "
                f"d.b{i}[j][lane] = from[j]; }}"
            )
    lines += [
        "}",
        "static void load_all(",
        "    Data &d, const void *const *arguments, int64_t fit, int64_t end) {",
        "  for (int lane = 0; lane < W; lane++)",
        "    load(d, arguments, lane, fit + lane < end ? fit + lane : fit);",
        "}",
        "static void hold(Data &d, const void *const *arguments, char *memory) {",
    ]
    for i, one in enumerate(data):
        kind = STORED[one.kind]
        if one.shared:
            lines.append(f"  d.b{i} = (const {kind} *)arguments[{i}];")
        else:
            lines.append(f"  d.b{i} = ({kind} (*)[W])memory; memory += {_bytes(one)} * W;")
    lines.append("}")
    size = sum(_bytes(one) for one in data if not one.shared)
    lines.append(f'extern "C" int64_t memory() {{ return {size} * W + 64; }}')
    return "\n".join(lines)


def _bytes(one: Argument) -> int:
    return -(-one.size * 8 // 64) * 64


def _storing(carried: Sequence[str], begun: Sequence[int]) -> str:
    """Puts states where they are kept between calls, and takes them back: of a lane, or of all."""
    put = ["static void put(const State &p, void *const *kept, int lane, int64_t fit) {"]
    take = ["static void take(State &p, void *const *kept, int lane, int64_t fit) {"]
    chosen = ["static void choose_all(State &p, L mask, const State &q) {"]  # p where it is true
    whole = "(State &p, void *const *kept, int64_t fit, int64_t end) {\n  if (end - fit < W) {"
    # idle lanes repeat the first fit
    put_all = [
        f"static void put_all{whole}",
        "    for (int l = 0; l < W && fit + l < end; l++) put(p, kept, l, fit + l);",
        "    return;\n  }",
    ]
    take_all = [
        f"static void take_all{whole}",
        "    for (int l = 0; l < W; l++) take(p, kept, l, fit + l < end ? fit + l : fit);",
        "    return;\n  }",
    ]
    for i, kind in enumerate(carried):
        stored, truth = STORED[kind], kind == TRUTH
        at = f"(({stored} *)kept[{i}])[fit"
        sign = "-(int64_t)" if truth else ""
        put.append(f"  {at}] = ({stored})p.s{i}[lane];")
        take.append(f"  p.s{i}[lane] = {sign}{at}];")
        chosen.append(f"  p.s{i} = choose(mask, p.s{i}, q.s{i});")
        if truth:
            put_all.append(f"  for (int l = 0; l < W; l++) {at} + l] = p.s{i}[l];")
            take_all.append(f"  for (int l = 0; l < W; l++) p.s{i}[l] = {sign}{at} + l];")
        else:
            put_all.append(f"  std::memcpy(&{at}], &p.s{i}, sizeof p.s{i});")
            take_all.append(f"  std::memcpy(&p.s{i}, &{at}], sizeof p.s{i});")
    only = ["static void take_begun(State &p, void *const *kept, int lane, int64_t fit) {"]
    only += [take[1 + i] for i in begun]
    parts = (put, take, only, put_all, take_all, chosen)
    return "\n".join("\n".join([*part, "}"]) for part in parts)
