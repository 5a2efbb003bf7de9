"""What stands before and behind every program."""

PRELUDE = r"""
// Vectors of numbers, one number for each of W fits, and the operators that C++ lacks for them.
#include <cmath>
#include <cstdint>
#include <cstring>

typedef double D __attribute__((vector_size(8 * W)));
typedef float S __attribute__((vector_size(4 * W)));
typedef int64_t L __attribute__((vector_size(8 * W)));  // whole numbers, and truth: 0 or -1
typedef int32_t I __attribute__((vector_size(4 * W)));

#define INLINE static inline __attribute__((always_inline))

// glibc has these for whole vectors; a call for each number costs several times as much
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#if __GLIBC_PREREQ(2, 35)
#define MANY(name)                                                          \
  extern "C" __attribute__((simd("notinbranch"))) double name(double) noexcept; \
  extern "C" __attribute__((simd("notinbranch"))) float name##f(float) noexcept;
MANY(log) MANY(sin) MANY(cos) MANY(tan) MANY(asin) MANY(acos) MANY(atan) MANY(sinh)
MANY(cosh) MANY(tanh) MANY(asinh) MANY(acosh) MANY(atanh) MANY(erf) MANY(erfc) MANY(log1p)
MANY(expm1) MANY(log2) MANY(log10) MANY(exp2)
#endif
#endif

#define ONE(name)                                                            \
  INLINE D name##_(D a) {                                                 \
    D r;                                                                  \
    for (int l = 0; l < W; l++) r[l] = name(a[l]);                        \
    return r;                                                             \
  }                                                                       \
  INLINE S name##_(S a) {                                                 \
    S r;                                                                  \
    for (int l = 0; l < W; l++) r[l] = name##f(a[l]);                     \
    return r;                                                             \
  }
#define TWO(name)                                                            \
  INLINE D name##_(D a, D b) {                                            \
    D r;                                                                  \
    for (int l = 0; l < W; l++) r[l] = name(a[l], b[l]);                  \
    return r;                                                             \
  }                                                                       \
  INLINE S name##_(S a, S b) {                                            \
    S r;                                                                  \
    for (int l = 0; l < W; l++) r[l] = name##f(a[l], b[l]);               \
    return r;                                                             \
  }
ONE(log) ONE(sin) ONE(cos) ONE(tan) ONE(asin) ONE(acos) ONE(atan) ONE(sinh) ONE(cosh)
ONE(tanh) ONE(asinh) ONE(acosh) ONE(atanh) ONE(erf) ONE(erfc) ONE(log1p) ONE(expm1) ONE(log2)
ONE(log10) ONE(exp2) ONE(sqrt) ONE(fabs) ONE(floor) ONE(ceil) ONE(trunc) ONE(lgamma)
TWO(pow) TWO(atan2) TWO(hypot)

INLINE L lt_(D a, D b) { return a < b; }
INLINE L le_(D a, D b) { return a <= b; }
INLINE L eq_(D a, D b) { return a == b; }
INLINE L ne_(D a, D b) { return a != b; }
INLINE L lt_(L a, L b) { return a < b; }
INLINE L le_(L a, L b) { return a <= b; }
INLINE L eq_(L a, L b) { return a == b; }
INLINE L ne_(L a, L b) { return a != b; }
INLINE L lt_(S a, S b) { return __builtin_convertvector(a < b, L); }
INLINE L le_(S a, S b) { return __builtin_convertvector(a <= b, L); }
INLINE L eq_(S a, S b) { return __builtin_convertvector(a == b, L); }
INLINE L ne_(S a, S b) { return __builtin_convertvector(a != b, L); }
INLINE D choose(L m, D a, D b) { return m ? a : b; }
INLINE L choose(L m, L a, L b) { return m ? a : b; }
INLINE S choose(L m, S a, S b) { return __builtin_convertvector(m, I) ? a : b; }
// as in torch, NaN wins
#define EXTREMES(T)                                                       \
  INLINE T maximum_(T a, T b) { return choose(lt_(b, a) | ne_(a, a), a, b); } \
  INLINE T minimum_(T a, T b) { return choose(lt_(a, b) | ne_(a, a), a, b); }
EXTREMES(D) EXTREMES(S) EXTREMES(L)
INLINE bool any_(L m) {
  int64_t found = 0;
  for (int l = 0; l < W; l++) found |= m[l];
  return found;
}
INLINE L finite_(D a) { return eq_(a - a, D{}); }
INLINE L finite_(S a) { return eq_(a - a, S{}); }
INLINE L finite_(L a) { return a == a; }
INLINE D to_double(S a) { return __builtin_convertvector(a, D); }
INLINE D to_double(L a) { return __builtin_convertvector(a, D); }
INLINE S to_float(D a) { return __builtin_convertvector(a, S); }
INLINE S to_float(L a) { return __builtin_convertvector(a, S); }
INLINE L to_whole(D a) { return __builtin_convertvector(a, L); }
INLINE L to_whole(S a) { return __builtin_convertvector(a, L); }
// Eigenvalues, rising, and eigenvectors of symmetric matrices by their lower triangles: Jacobi's
// rotations until nothing is left beside the diagonal.
// Golub & Van Loan, Matrix Computations (2013), section 8.5
template <class V, int N> struct Eigen { V values[N], vectors[N][N]; };
template <class V, int N>
static __attribute__((noinline)) Eigen<V, N> eigen_(const V (&lower)[N * (N + 1) / 2]) {
  V a[N][N];
  Eigen<V, N> e;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      a[i][j] = i < j ? lower[j * (j + 1) / 2 + i] : lower[i * (i + 1) / 2 + j];
      e.vectors[i][j] = V{} + (i == j);
    }
  for (int sweep = 0; sweep < 30; sweep++) {
    L going = L{};
    for (int p = 0; p < N; p++)
      for (int q = p + 1; q < N; q++) {
        // beside these diagonal entries it is nothing any more
        L need = ne_(fabs_(a[p][p]) + fabs_(a[p][q]), fabs_(a[p][p])) |
                 ne_(fabs_(a[q][q]) + fabs_(a[p][q]), fabs_(a[q][q]));
        going |= need;
        V half = (a[q][q] - a[p][p]) / (a[p][q] + a[p][q]);
        V t = 1.0 / (fabs_(half) + sqrt_(half * half + 1.0));
        t = choose(lt_(half, V{}), -t, t);
        t = choose(need, t, V{});
        V c = 1.0 / sqrt_(t * t + 1.0), s = t * c;
        V shift = choose(need, t * a[p][q], V{});
        a[p][p] -= shift;
        a[q][q] += shift;
        a[p][q] = a[q][p] = choose(need, V{}, a[p][q]);
        for (int k = 0; k < N; k++) {
          V u = e.vectors[k][p], w = e.vectors[k][q];
          e.vectors[k][p] = c * u - s * w;
          e.vectors[k][q] = s * u + c * w;
          if (k == p || k == q) continue;
          V f = a[k][p], g = a[k][q];
          a[k][p] = a[p][k] = c * f - s * g;
          a[k][q] = a[q][k] = s * f + c * g;
        }
      }
    if (!any_(going)) break;
  }
  for (int i = 0; i < N; i++) e.values[i] = a[i][i];
  for (int i = 0; i < N; i++)
    for (int j = 0; j + 1 < N - i; j++) {
      L turn = lt_(e.values[j + 1], e.values[j]);
      V low = choose(turn, e.values[j + 1], e.values[j]);
      e.values[j + 1] = choose(turn, e.values[j], e.values[j + 1]);
      e.values[j] = low;
      for (int k = 0; k < N; k++) {
        V first = choose(turn, e.vectors[k][j + 1], e.vectors[k][j]);
        e.vectors[k][j + 1] = choose(turn, e.vectors[k][j], e.vectors[k][j + 1]);
        e.vectors[k][j] = first;
      }
    }
  return e;
}
// exp without a call, around which all registers would be saved: x = k ln 2 + r, and a polynomial
// of |r| <= ln 2 / 2, to less than a unit of the last digit
INLINE D exp_(D x) {
  D low_ = D{} - 746.0, high_ = D{} + 710.0;
  D bounded = choose(lt_(x, low_), low_, choose(lt_(high_, x), high_, x));
  const D shift = D{} + 0x1.8p52;
  D shifted = bounded * 1.4426950408889634 + shift;
  D k = shifted - shift;
  D r = (bounded - k * 0x1.62e42fefa0000p-1) - k * 0x1.cf79abc9e3b39p-40;
  D p = D{} + 0x1.6124613a86d09p-33;  // 1 / 13!
  p = p * r + 0x1.1eed8eff8d898p-29;
  p = p * r + 0x1.ae64567f544e4p-26;
  p = p * r + 0x1.27e4fb7789f5cp-22;
  p = p * r + 0x1.71de3a556c734p-19;
  p = p * r + 0x1.a01a01a01a01ap-16;
  p = p * r + 0x1.a01a01a01a01ap-13;
  p = p * r + 0x1.6c16c16c16c17p-10;
  p = p * r + 0x1.1111111111111p-7;
  p = p * r + 0x1.5555555555555p-5;
  p = p * r + 0x1.5555555555555p-3;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  L n = (L)shifted - (L)shift;
  L half = n >> 1;  // in two steps, for results below the smallest normal number
  D low = (D)((half + 1023) << 52), high = (D)((n - half + 1023) << 52);
  return p * low * high;
}
INLINE S exp_(S x) {
  S low_ = S{} - 104.0f, high_ = S{} + 89.0f;
  S bounded = choose(lt_(x, low_), low_, choose(lt_(high_, x), high_, x));
  const S shift = S{} + 0x1.8p23f;
  S shifted = bounded * 1.44269504f + shift;
  S k = shifted - shift;
  S r = (bounded - k * 0x1.62e400p-1f) - k * 0x1.7f7d1cp-20f;
  S p = S{} + 0x1.a01a02p-13f;  // 1 / 7!
  p = p * r + 0x1.6c16c2p-10f;
  p = p * r + 0x1.111112p-7f;
  p = p * r + 0x1.555556p-5f;
  p = p * r + 0x1.555556p-3f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  I n = (I)shifted - (I)shift;
  I half = n >> 1;
  S low = (S)((half + 127) << 23), high = (S)((n - half + 127) << 23);
  return p * low * high;
}
"""

DRIVER = """
// Descends on `count` fits, those of `chosen`; `resumed`: 1, from the state that is kept; 2, from
// the start, but what is kept says where the first of several runs began.
// A fit that still runs after `limit` trials, or beside `few` others at most, is left running.
extern "C" void descend(
    int64_t count, const int64_t *chosen, const void *const *arguments,
    void *const *kept, int resumed, int64_t limit, int64_t few, int64_t newton, char *memory) {
  Data d;
  hold(d, arguments, memory);
  for (int64_t start = 0; start < count; start += W) {
    int lanes = count - start < W ? (int)(count - start) : W;
    State p, q;
    Rest r, t;
    for (int lane = 0; lane < W; lane++) {  // idle lanes repeat the first fit
      int64_t fit = chosen[start + (lane < lanes ? lane : 0)];
      load(d, arguments, lane, fit);
      if (resumed == 1) take(p, kept, lane, fit);
    }
    L running = L{} - 1, trials = L{};
    if (resumed != 1) { begin(d, p, r, q, t); p = q; }
    if (resumed == 2)
      for (int lane = 0; lane < W; lane++)
        take_begun(p, kept, lane, chosen[start + (lane < lanes ? lane : 0)]);
    for (int64_t number = 0;; number++) {
      told(p, running, trials);
      int left = 0;
      int64_t most = 0;
      for (int lane = 0; lane < lanes; lane++) {
        if (running[lane]) { left++; if (trials[lane] > most) most = trials[lane]; }
      }
      if (left == 0 || most >= limit || (left <= few && number >= 4)) break;
      step(d, p, r, q, t);
      p = q;
    }
    look(d, p, r, q, t);
    if (any_(t.s0 & ~running)) {
      for (int64_t number = 0; number <= newton && any_(t.s0); number++) {
        State before = q;
        r = t;
        settle(d, before, r, q, t);
      }
    }
    bool together = lanes == W;
    for (int lane = 0; lane < lanes; lane++)
      together &= chosen[start + lane] == chosen[start] + lane;
    if (together) {
      put_all(p, q, running, kept, chosen[start]);
      continue;
    }
    for (int lane = 0; lane < lanes; lane++)
      put(running[lane] ? p : q, kept, lane, chosen[start + lane]);
  }
}
"""
