"""What programs in C++ and in CUDA share, written for numbers and for vectors of them alike."""

SHARED = r"""
// as in torch, NaN wins
#define EXTREMES(T)                                                       \
  INLINE T maximum_(T a, T b) { return choose(lt_(b, a) | ne_(a, a), a, b); } \
  INLINE T minimum_(T a, T b) { return choose(lt_(a, b) | ne_(a, a), a, b); }
EXTREMES(D) EXTREMES(S) EXTREMES(L)
INLINE L finite_(D a) { return eq_(a - a, D{}); }
INLINE L finite_(S a) { return eq_(a - a, S{}); }
INLINE L finite_(L a) { return eq_(a, a); }
// Eigenvalues, rising, and eigenvectors of symmetric matrices by their lower triangles: Jacobi's
// rotations until nothing is left beside the diagonal.
// Golub & Van Loan, Matrix Computations (2013), section 8.5
template <class V, int N> struct Eigen { V values[N], vectors[N][N]; };
template <class V, int N>
OUTLINE Eigen<V, N> eigen_(const V (&lower)[N * (N + 1) / 2]) {
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
"""
