"""What stands before and behind every program in C++: vectors, and the descent of their lanes."""

from .shared import SHARED

VECTORS = r"""
// Vectors of numbers, one number for each of W fits, and the operators that C++ lacks for them.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

typedef double D __attribute__((vector_size(8 * W)));
typedef float S __attribute__((vector_size(4 * W)));
typedef int64_t L __attribute__((vector_size(8 * W)));  // whole numbers, and truth: 0 or -1
typedef int32_t I __attribute__((vector_size(4 * W)));
// two points of each of W fits, which fill a register where float64 does: as many lanes twice
typedef float P __attribute__((vector_size(8 * W)));
typedef int32_t J __attribute__((vector_size(8 * W)));

// registers that hold eight float64
#if W == 8 && defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define WIDE
#include <immintrin.h>
// and four, with as many float32 in half of one
#elif W == 4 && defined(__AVX2__)
#define FOUR
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define OUTLINE static __attribute__((noinline))
#define FUNCTION static

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
  }                                                                       \
  INLINE P name##_(P a) {                                                 \
    P r;                                                                  \
    for (int l = 0; l < 2 * W; l++) r[l] = name##f(a[l]);                 \
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
  }                                                                       \
  INLINE P name##_(P a, P b) {                                            \
    P r;                                                                  \
    for (int l = 0; l < 2 * W; l++) r[l] = name##f(a[l], b[l]);           \
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
INLINE J lt_(P a, P b) { return a < b; }
INLINE J ne_(P a, P b) { return a != b; }
#if defined(WIDE)  // for which a compiler converts in halves
INLINE D to_double(S a) { return _mm512_cvtps_pd(a); }
INLINE S to_float(D a) { return _mm512_cvtpd_ps(a); }
INLINE I narrow(L a) { return (I)_mm512_cvtepi64_epi32((__m512i)a); }
INLINE L lt_(S a, S b) { return to_double(a) < to_double(b); }
INLINE L le_(S a, S b) { return to_double(a) <= to_double(b); }
INLINE L eq_(S a, S b) { return to_double(a) == to_double(b); }
INLINE L ne_(S a, S b) { return to_double(a) != to_double(b); }
INLINE S choose(L m, S a, S b) { return narrow(m) ? a : b; }
#elif defined(FOUR)  // for which it converts in halves and by way of memory
INLINE D to_double(S a) { return _mm256_cvtps_pd(a); }
INLINE S to_float(D a) { return _mm256_cvtpd_ps(a); }
INLINE L widen(__m128 a) { return (L)_mm256_cvtepi32_epi64((__m128i)a); }
INLINE __m128 narrow(L a) {  // of what is true in both halves of a number
  __m256 whole = (__m256)a;
  return _mm_shuffle_ps(
      _mm256_castps256_ps128(whole), _mm256_extractf128_ps(whole, 1), _MM_SHUFFLE(2, 0, 2, 0));
}
INLINE L lt_(S a, S b) { return widen(_mm_cmplt_ps(a, b)); }
INLINE L le_(S a, S b) { return widen(_mm_cmple_ps(a, b)); }
INLINE L eq_(S a, S b) { return widen(_mm_cmpeq_ps(a, b)); }
INLINE L ne_(S a, S b) { return widen(_mm_cmpneq_ps(a, b)); }
INLINE S choose(L m, S a, S b) { return _mm_blendv_ps(b, a, narrow(m)); }
#else
INLINE D to_double(S a) { return __builtin_convertvector(a, D); }
INLINE S to_float(D a) { return __builtin_convertvector(a, S); }
INLINE I narrow(L a) { return __builtin_convertvector(a, I); }
INLINE L lt_(S a, S b) { return __builtin_convertvector(a < b, L); }
INLINE L le_(S a, S b) { return __builtin_convertvector(a <= b, L); }
INLINE L eq_(S a, S b) { return __builtin_convertvector(a == b, L); }
INLINE L ne_(S a, S b) { return __builtin_convertvector(a != b, L); }
INLINE S choose(L m, S a, S b) { return narrow(m) ? a : b; }
#endif
INLINE D choose(L m, D a, D b) { return m ? a : b; }
INLINE P choose(J m, P a, P b) { return m ? a : b; }
INLINE L choose(L m, L a, L b) { return m ? a : b; }
#if defined(WIDE)
INLINE bool any_(L m) { return _mm512_movepi64_mask((__m512i)m); }
INLINE bool any_(I m) { return _mm256_movepi32_mask((__m256i)m); }
INLINE bool any_(J m) { return _mm512_movepi32_mask((__m512i)m); }
#elif defined(FOUR)
INLINE bool any_(L m) { return _mm256_movemask_pd((__m256d)m); }
INLINE bool any_(I m) { return _mm_movemask_ps((__m128)m); }
INLINE bool any_(J m) { return _mm256_movemask_ps((__m256)m); }
#else
INLINE bool any_(L m) {
  int64_t found = 0;
  for (int l = 0; l < W; l++) found |= m[l];
  return found;
}
INLINE bool any_(I m) { return any_(__builtin_convertvector(m, L)); }
INLINE bool any_(J m) { return any_((L)m); }
#endif
#if defined(WIDE)
INLINE P pair(S a, S b) { return _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1); }
INLINE S first_(P a) { return _mm512_castps512_ps256(a); }
INLINE S second_(P a) { return _mm512_extractf32x8_ps(a, 1); }
#elif defined(FOUR)
INLINE P pair(S a, S b) { return _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1); }
INLINE S first_(P a) { return _mm256_castps256_ps128(a); }
INLINE S second_(P a) { return _mm256_extractf128_ps(a, 1); }
#else
INLINE P pair(S a, S b) {
  P r;
  for (int l = 0; l < W; l++) r[l] = a[l], r[l + W] = b[l];
  return r;
}
INLINE S first_(P a) {
  S r;
  for (int l = 0; l < W; l++) r[l] = a[l];
  return r;
}
INLINE S second_(P a) {
  S r;
  for (int l = 0; l < W; l++) r[l] = a[l + W];
  return r;
}
#endif
INLINE D to_double(L a) { return __builtin_convertvector(a, D); }
INLINE S to_float(L a) { return __builtin_convertvector(a, S); }
INLINE L to_whole(D a) { return __builtin_convertvector(a, L); }
INLINE L to_whole(S a) { return __builtin_convertvector(a, L); }
"""

EXPONENTIALS = r"""
// exp without a call, around which all registers would be saved: x = k ln 2 + r, and a polynomial
// of |r| <= ln 2 / 2, to less than a unit of the last digit. Its terms are added in pairs: in a
// row, each would wait for the one before.
// p, and k in the lowest bits of `shifted`
INLINE D exp_parts(D x, D &shifted) {
  const D shift = D{} + 0x1.8p52;
  shifted = x * 1.4426950408889634 + shift;
  D k = shifted - shift;
  D r = (x - k * 0x1.62e42fefa0000p-1) - k * 0x1.cf79abc9e3b39p-40;
  D squared = r * r, fourth = squared * squared;
  D low = (0x1.11111111100cep-7 * r + 0x1.5555555555556p-5) * squared +
          (0x1.5555555555557p-3 * r + 0.5);
  D middle = (0x1.71de021a90822p-19 * r + 0x1.a01a01a6dcaffp-16) * squared +
             (0x1.a01a01abef415p-13 * r + 0x1.6c16c16c162ccp-10);
  D high = 0x1.1f731ea5352cap-29 * squared + (0x1.af4e196027428p-26 * r + 0x1.27e4db57442fbp-22);
  D p = (high * fourth + middle) * fourth + low;
  return (p * r + 1.0) * r + 1.0;
}
template <class V> INLINE V exp_parts(V x, V &shifted) {
  const V shift = V{} + 0x1.8p23f;
  shifted = x * 1.44269504f + shift;
  V k = shifted - shift;
  V r = (x - k * 0x1.62e400p-1f) - k * 0x1.7f7d1cp-20f;
  V squared = r * r;
  V p = ((0x1.a12528p-13f * r + 0x1.6d4362p-10f) * squared +
         (0x1.1110e0p-7f * r + 0x1.5554e8p-5f)) * squared + (0x1.555556p-3f * r + 0.5f);
  return (p * r + 1.0f) * r + 1.0f;
}
// of results that overflow or are below the smallest normal number, and of NaN. A result that is
// less than normal is made of whole numbers, of which its bits are the count: a processor takes
// thirty times as long for a product that comes to one, or to nothing in its place.
OUTLINE D exp_far(D x) {
  const D low_ = D{} - 746.0, high_ = D{} + 710.0, least = D{} + 0x1p52;
  D shifted, p = exp_parts(x < low_ ? low_ : high_ < x ? high_ : x, shifted);
  L n = (L)shifted - (L)(D{} + 0x1.8p52);
  D y = (D)((L)p + (n << 52));
  D count = p * (D)(((n < -1021 ? n : L{} - 1021) + 2097) << 52);  // of 2^-1074
  y = count < least ? (D)((L)(count + least) - (L)least) : y;
  y = x > 0x1.62e42fefa39efp+9 ? D{} + INFINITY : y;
  return x == x ? y : x;
}
template <class V, class N> OUTLINE V exp_far(V x) {
  const V low_ = V{} - 104.0f, high_ = V{} + 89.0f, least = V{} + 0x1p23f;
  V shifted, p = exp_parts(x < low_ ? low_ : high_ < x ? high_ : x, shifted);
  N n = (N)shifted - (N)(V{} + 0x1.8p23f);
  V y = (V)((N)p + (n << 23));
  V count = p * (V)(((n < -125 ? n : N{} - 125) + 276) << 23);  // of 2^-149
  y = count < least ? (V)((N)(count + least) - (N)least) : y;
  y = x > 0x1.62e42ep+6f ? V{} + INFINITY : y;
  return x == x ? y : x;
}
#ifdef WIDE
// 2^(j/16) from registers, and what rounding has left of it; |r| <= ln 2 / 32 needs half the terms
INLINE D exp_near(D x) {
  const D first = {
      0x1.0000000000000p0, 0x1.0b5586cf9890fp0, 0x1.172b83c7d517bp0, 0x1.2387a6e756238p0,
      0x1.306fe0a31b715p0, 0x1.3dea64c123422p0, 0x1.4bfdad5362a27p0, 0x1.5ab07dd485429p0};
  const D second = {
      0x1.6a09e667f3bcdp0, 0x1.7a11473eb0187p0, 0x1.8ace5422aa0dbp0, 0x1.9c49182a3f090p0,
      0x1.ae89f995ad3adp0, 0x1.c199bdd85529cp0, 0x1.d5818dcfba487p0, 0x1.ea4afa2a490dap0};
  const D first_left = {
      0x0.0p0, 0x1.8a62e4adc610bp-54, -0x1.19041b9d78a76p-55, 0x1.9b07eb6c70573p-54,
      0x1.6f46ad23182e4p-55, 0x1.ada0911f09ebcp-55, 0x1.d4397afec42e2p-56, 0x1.6324c054647adp-54};
  const D second_left = {
      -0x1.bdd3413b26456p-54, -0x1.41577ee04992fp-55, 0x1.6e9f156864b27p-54, 0x1.c7c46b071f2bep-56,
      0x1.7a1cd345dcc81p-54, 0x1.11065895048ddp-55, 0x1.2ed02d75b3707p-55, -0x1.e9c23179c2893p-54};
  const D shift = D{} + 0x1.8p52;
  D shifted = x * 0x1.71547652b82fep+4 + shift;
  D k = shifted - shift;  // in sixteenths
  D r = (x - k * 0x1.62e42fec00000p-5) - k * 0x1.d1cf79abc9e3bp-36;
  D squared = r * r;
  D p = (0x1.6c17bb91efb39p-10 * r + 0x1.11120b36ff666p-7) * squared +
        (0x1.55555555192e5p-5 * r + 0x1.55555554dd075p-3);
  D rest = (p * r + 0.5) * squared + r;
  D power = _mm512_permutex2var_pd(first, (__m512i)shifted, second);
  D left = _mm512_permutex2var_pd(first_left, (__m512i)shifted, second_left);
  return (D)((L)(power + (power * rest + left)) + (((L)shifted >> 4) << 52));
}
INLINE D exp_(D x) {
  D y = exp_near(x);
  if (__builtin_expect(any_(~(fabs_(x) <= 708.0)), 0)) y = exp_far(x);
  return y;
}
INLINE void exp_both(D a, D b, D &of_a, D &of_b) {
  of_a = exp_near(a), of_b = exp_near(b);
  if (__builtin_expect(any_(~((fabs_(a) <= 708.0) & (fabs_(b) <= 708.0))), 0))
    of_a = exp_far(a), of_b = exp_far(b);
}
#else
// of all others k is added to the exponent of p
INLINE D exp_(D x) {
  D shifted, p = exp_parts(x, shifted), y = (D)((L)p + ((L)shifted << 52));
  if (__builtin_expect(any_(~(fabs_(x) <= 708.0)), 0)) y = exp_far(x);
  return y;
}
// of two vectors, line by line: a constant is read once for both
INLINE void exp_both(D a, D b, D &of_a, D &of_b) {
  const D shift = D{} + 0x1.8p52;
  D n = a * 1.4426950408889634 + shift, n_b = b * 1.4426950408889634 + shift;
  D k = n - shift, k_b = n_b - shift;
  D r = a - k * 0x1.62e42fefa0000p-1, r_b = b - k_b * 0x1.62e42fefa0000p-1;
  r = r - k * 0x1.cf79abc9e3b39p-40, r_b = r_b - k_b * 0x1.cf79abc9e3b39p-40;
  D squared = r * r, squared_b = r_b * r_b;
  D fourth = squared * squared, fourth_b = squared_b * squared_b;
#define BOTH(name, first, second, of, third) \
  D name = first * of + third, name##_b = second * of##_b + third;
#define TERMS(name, slope, first) BOTH(name, slope, slope, r, first)
  TERMS(low_1, 0x1.11111111100cep-7, 0x1.5555555555556p-5)
  TERMS(low_0, 0x1.5555555555557p-3, 0.5)
  TERMS(middle_1, 0x1.71de021a90822p-19, 0x1.a01a01a6dcaffp-16)
  TERMS(middle_0, 0x1.a01a01abef415p-13, 0x1.6c16c16c162ccp-10)
  TERMS(high_0, 0x1.af4e196027428p-26, 0x1.27e4db57442fbp-22)
#undef BOTH
#undef TERMS
  D low = low_1 * squared + low_0, low_b = low_1_b * squared_b + low_0_b;
  D middle = middle_1 * squared + middle_0, middle_b = middle_1_b * squared_b + middle_0_b;
  D high = 0x1.1f731ea5352cap-29 * squared + high_0;
  D high_b = 0x1.1f731ea5352cap-29 * squared_b + high_0_b;
  D p = (high * fourth + middle) * fourth + low;
  D p_b = (high_b * fourth_b + middle_b) * fourth_b + low_b;
  p = (p * r + 1.0) * r + 1.0, p_b = (p_b * r_b + 1.0) * r_b + 1.0;
  of_a = (D)((L)p + ((L)n << 52)), of_b = (D)((L)p_b + ((L)n_b << 52));
  if (__builtin_expect(any_(~((fabs_(a) <= 708.0) & (fabs_(b) <= 708.0))), 0))
    of_a = exp_far(a), of_b = exp_far(b);
}
#endif
template <class V, class N> INLINE V exp_single(V x) {
  V shifted, p = exp_parts(x, shifted), y = (V)((N)p + ((N)shifted << 23));
  if (__builtin_expect(any_(~(fabs_(x) <= 87.0f)), 0)) y = exp_far<V, N>(x);
  return y;
}
INLINE S exp_(S x) { return exp_single<S, I>(x); }
INLINE P exp_(P x) { return exp_single<P, J>(x); }
"""

# points of which costly functions are made before the sums: they stay in the nearest cache
TILES = "#define TILE 64\n"

PRELUDE = TILES + VECTORS + SHARED + "EXTREMES(P)\n" + EXPONENTIALS

DRIVER = """
// Descends on `count` fits from number `first` on, whose states are kept in between; `resumed`: 1,
// from the state that is kept; 2, from the start, but what is kept says where the first of several
// runs began. A fit that still runs after `limit` trials is left running.
// A lane whose fit has ended takes the next one, so that none waits for its neighbours.
extern "C" void descend(
    int64_t count, int64_t first, const void *const *arguments, void *const *kept, int resumed,
    int64_t limit, int64_t newton, char *memory) {
  Data d;
  hold(d, arguments, memory);
  State p, q;
  Rest r, t;
  const int64_t end = first + count;
  for (int64_t start = first; resumed != 1 && start < end; start += W) {
    load_all(d, arguments, start, end);
    begin(d, p, r, q, t);
    for (int lane = 0; resumed == 2 && lane < W && start + lane < end; lane++)
      take_begun(q, kept, lane, start + lane);
    put_all(q, kept, start, end);
  }
  int64_t fits[W], next = first;
  int busy = 0;
  auto another = [&](int lane, State &state) {
    while (next < end && !going(kept, next, limit)) next++;
    if (next == end) return fits[lane] = -1, false;
    load(d, arguments, lane, next);
    take(state, kept, lane, next);
    return fits[lane] = next++, true;
  };
  for (int lane = 0; lane < W; lane++) {
    if (another(lane, p)) busy++;
    else load(d, arguments, lane, first), take(p, kept, lane, first);
  }
  L running, trials;
  for (State *now = &p, *then = &q; busy; ) {
    step(d, *now, r, *then, t);
    std::swap(now, then);
    told(*now, running, trials);
    running &= trials < limit;
    if (!any_(~running)) continue;
    for (int lane = 0; lane < W; lane++) {
      if (running[lane] || fits[lane] < 0) continue;
      put(*now, kept, lane, fits[lane]);
      if (!another(lane, *now)) busy--;
    }
  }
  for (int64_t start = first; start < end; start += W) {
    load_all(d, arguments, start, end);
    take_all(p, kept, start, end);
    told(p, running, trials);
    look(d, p, r, q, t);
    for (int64_t number = 0; number <= newton && any_(t.s0 & ~running); number++) {
      State before = q;
      r = t;
      settle(d, before, r, q, t);
    }
    choose_all(p, running, q);
    put_all(p, kept, start, end);
  }
}
"""
