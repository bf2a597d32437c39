/* fit_tau2.cu — heterogeneity of largest likelihood of all studies, given their means.
   Twin: gpu_sdm/ops/fit_bounds.py::_fit_tau2
   thread  fit_tau2_grid: one voxel at one point of the grid; fit_tau2_valleys: one voxel.
           Grid-stride, any block; no shared memory or barriers; one integer atomic
   inputs  lower, upper (K, V) f32; c, v2 (K) and design (K, Q) f64 as fit_bounds.cu; beta (Q, V)
           f64; grid (G) f64, increasing from 0
   in/out  f (G + 60, V) f64: the profile at the grid's points first..last-1, and at the last
           doubled until it rises
   scratch cursor (V) i32, 0 before; points (V) i32; best_f (V) f64; unfinished (1) i32, added to
   output  tau2 (V) f64
   math    the least of the grid and of the refined valleys around its local minima; the slope's
           zero by false position (Illinois), by bisection where it has one sign; float64
   knobs   Q, MEAN (bounds_terms.cuh); BLOCK, the largest block it is launched with
   edge    valleys: launched again until nobody is left unfinished; a thread stops after `passes`
           sums over the studies and goes on where it was                                    */

#ifndef BLOCK
#define BLOCK 128
#endif
#define RESIDENT (Q > 2 ? 2 : 4)  // blocks of a multiprocessor: unasked, ptxas would spill for more

#include "common.cuh"
#include "normal_tail.cuh"
#include "bounds_terms.cuh"

#define MAX_DOUBLINGS 60
#define ROOT_STEPS 80

// Minus log-likelihood at tau2 = t, and its slope.
__device__ __forceinline__ Profile profile(const Bounds& d, const double* beta, double t) {
  Profile sum = {0.0, 0.0};
#pragma unroll 1
  for (int k = 0; k < d.n_studies; ++k) {
    const Profile own = profile_terms(t, fitted(d, k, beta), load(d, k));
    sum.f += own.f;
    sum.g += own.g;
  }
  return sum;
}

__device__ __forceinline__ double root(const Bounds& d, const double* beta, double lo, double hi,
                                       int* passes) {
  double at_lo = profile(d, beta, lo).g, at_hi = profile(d, beta, hi).g;
  const bool crossing = at_lo < 0.0 && 0.0 < at_hi;
  int side = 0;
  double t = 0.5 * (lo + hi);
  *passes += 2;
#pragma unroll 1
  for (int step = 0; step < ROOT_STEPS; ++step) {
    const double old = t;
    t = crossing ? (lo * at_hi - hi * at_lo) / (at_hi - at_lo) : 0.5 * (lo + hi);
    const double slope = profile(d, beta, t).g;
    ++*passes;
    if (slope < 0.0) {
      lo = t;
      at_lo = slope;
      if (side < 0) at_hi *= 0.5;
      side = -1;
    } else {
      hi = t;
      at_hi = slope;
      if (side > 0) at_lo *= 0.5;
      side = 1;
    }
    if (slope == 0.0 || hi - lo <= 1e-12 * hi || fabs(t - old) <= 1e-13 * t) break;
  }
  return t;
}

__device__ __forceinline__ double point(const double* grid, int n_grid, int j) {
  return j < n_grid ? grid[j] : ldexp(grid[n_grid - 1], j - n_grid + 1);
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
    fit_tau2_grid(const float* __restrict__ lower, const float* __restrict__ upper,
                  const double* __restrict__ c, const double* __restrict__ v2,
                  const double* __restrict__ design, const double* __restrict__ beta,
                  const double* __restrict__ grid, double* __restrict__ f, long long n_studies,
                  long long n_voxels, long long first, long long last) {
  const long long items = (last - first) * n_voxels;
  for (long long i = thread_id(); i < items; i += thread_count()) {
    const long long v = i % n_voxels, j = first + i / n_voxels;
    const Bounds d = {lower, upper, c, v2, design, (int)n_studies, n_voxels, v};
    double here[Q];
#pragma unroll
    for (int p = 0; p < Q; ++p) here[p] = beta[p * n_voxels + v];
    f[j * n_voxels + v] = profile(d, here, grid[j]).f;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
    fit_tau2_valleys(const float* __restrict__ lower, const float* __restrict__ upper,
                     const double* __restrict__ c, const double* __restrict__ v2,
                     const double* __restrict__ design, const double* __restrict__ beta,
                     const double* __restrict__ grid, double* __restrict__ f,
                     int* __restrict__ cursor, int* __restrict__ points,
                     double* __restrict__ best_f, double* __restrict__ tau2,
                     int* __restrict__ unfinished, long long n_grid, long long n_studies,
                     long long n_voxels, long long most_passes) {
  const long long n = n_voxels;
  for (long long v = thread_id(); v < n; v += thread_count()) {
    if (cursor[v] < 0) continue;
    const Bounds d = {lower, upper, c, v2, design, (int)n_studies, n, v};
    const int given = (int)n_grid;
    double here[Q];
#pragma unroll
    for (int p = 0; p < Q; ++p) here[p] = beta[p * n + v];
    if (cursor[v] == 0) {
      points[v] = given;
      best_f[v] = f[v];
      tau2[v] = 0.0;
      cursor[v] = 1;  // one more than the next point to look at
    }
    int known = points[v], j = cursor[v] - 1, passes = 0;
    bool rising = false;
    while (passes < most_passes) {
      const double end = f[(known - 1) * n + v], before = f[(known - 2) * n + v];
      rising = known == given + MAX_DOUBLINGS || !(end == INFINITE || end < before);
      if (rising) break;
      f[known * n + v] = profile(d, here, point(grid, given, known)).f;
      ++known;
      ++passes;
    }
    for (; rising && j < known && passes < most_passes; ++j) {
      const double low = f[j * n + v], t = point(grid, given, j);
      if (j > 0 && !(low <= f[(j - 1) * n + v])) continue;
      if (j + 1 < known && !(low < f[(j + 1) * n + v])) continue;
      if (low < best_f[v]) {
        best_f[v] = low;
        tau2[v] = t;
      }
      ++passes;
      const bool down = profile(d, here, t).g < 0.0;
      if (!down && j == 0) continue;
      const double lo = down ? t : point(grid, given, j - 1);
      const double hi = down ? point(grid, given, j + 1 < known ? j + 1 : j) : t;
      const double zero = root(d, here, lo, hi, &passes), value = profile(d, here, zero).f;
      ++passes;
      if (value < best_f[v]) {
        best_f[v] = value;
        tau2[v] = zero;
      }
    }
    const bool finished = rising && j >= known;
    points[v] = known;
    cursor[v] = finished ? -1 : j + 1;
    if (!finished) atomicAdd(unfinished, 1);
  }
}
