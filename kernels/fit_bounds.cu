/* fit_bounds.cu — most likely coefficients of every voxel, and the conservative leave-one-out rule
   Twin: gpu_sdm/ops/fit_bounds.py::fit_bounds, by the shortcuts of its compiled version
   thread  one voxel; grid-stride, any block; no shared memory or barriers; one integer atomic.
           Every array is (..., V), so that neighbouring threads read neighbouring words
   entries fit_bounds_start  the optimum of all studies, from 0; keeps everyone
           fit_bounds_drop   one step of the rule; launched again until nobody is left unfinished,
                             so that no launch is long: a thread stops after `passes` sums over
                             the studies and goes on where it was
   inputs  lower, upper (K, V) f32, infinite where nothing is known; c, v2 (K) f64; design (K, Q)
           f64 and crit (Q) f64, not read where MEAN
   in/out  beta (Q, V) f64; good (V) i32: every search of what was kept converged; keep (W, V) u32,
           W = ceil(K / 32): a bit for each study not dropped
   scratch stage (V) i32, 0 before a step; best (V) f64; fits (K, Q, V), guess (K, V) and
           work (2, K, V) f64; open, fine (W, V) u32; unfinished (1) i32, added to
   output  dropped (V) i32, the study that this step drops; of equal ones the first
   math    damped Newton with a line search that no wall lets through; float64. Studies are solved
           in the order of what one Newton step predicts, and those that cannot win are not: for a
           mean because |mean without k| < T exactly when the slope of the others is positive at T
           and negative at -T, else, of many studies, where 8 times the predicted shift is too
           short (gpu_sdm/ops/_fit_bounds_terms.py)
   knobs   Q, MEAN (bounds_terms.cuh); BLOCK, the largest block it is launched with
   edge    a NaN among the bounds ends every search at once                                  */

#ifndef BLOCK
#define BLOCK 128
#endif
#define RESIDENT (Q > 2 ? 2 : 4)  // blocks of a multiprocessor: unasked, ptxas would spill for more

#include "common.cuh"
#include "normal_tail.cuh"
#include "bounds_terms.cuh"
#include "bounds_newton.cuh"

#define TIE 1e-7
#define SURE_STUDIES 32
#define SURE_SHIFTS 8.0
#define DONE 2

// Slope of every kept study at mean mu in `out` (K, V), NaN behind the wall: sum and walls.
__device__ __forceinline__ double slopes(const Bounds& d, double mu, const unsigned* keep,
                                         double* out, int* walls) {
  double sum = 0.0;
  *walls = 0;
#pragma unroll 1
  for (int k = 0; k < d.n_studies; ++k) {
    if (!bit(keep, d, k)) continue;
    const Terms t = study_terms(mu, load(d, k));
    const bool wall = t.f == INFINITE;
    *walls += wall;
    sum += t.g;
    out[k * d.n_voxels + d.v] = wall ? INFINITE - INFINITE : t.g;
  }
  return sum;
}

// Close the studies whose absence cannot bring the criterion below `best`.
__device__ __forceinline__ void close_losers(const Bounds& d, double best, const unsigned* keep,
                                             unsigned* open, double* work, int* passes) {
  const long long n = d.n_voxels;
  double *upper = work, *lower = work + d.n_studies * n;
  if (!MEAN) {
#pragma unroll 1
    for (int k = 0; d.n_studies > SURE_STUDIES && k < d.n_studies; ++k)
      if (bit(open, d, k) && upper[k * n + d.v] > best + TIE) set_bit(open, d, k, false);
    return;
  }
  int walls_up, walls_down;
  const double up = slopes(d, best + TIE, keep, upper, &walls_up);
  const double down = slopes(d, -best - TIE, keep, lower, &walls_down);
  *passes += 2;
#pragma unroll 1
  for (int k = 0; k < d.n_studies; ++k) {
    if (!bit(open, d, k)) continue;
    const double own_up = upper[k * n + d.v], own_down = lower[k * n + d.v];
    const bool wall_up = own_up != own_up, wall_down = own_down != own_down;
    const bool above = walls_up > wall_up || up - (wall_up ? 0.0 : own_up) >= 0.0;
    const bool below = walls_down > wall_down || down - (wall_down ? 0.0 : own_down) <= 0.0;
    if (!(above && below)) set_bit(open, d, k, false);
  }
}

__device__ __forceinline__ double criterion(const double* crit, const double* beta) {
  if (MEAN) return beta[0];
  double sum = 0.0;
#pragma unroll
  for (int p = 0; p < Q; ++p) sum = fma(__ldg(crit + p), beta[p], sum);
  return sum;
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
    fit_bounds_start(const float* __restrict__ lower, const float* __restrict__ upper,
                     const double* __restrict__ c, const double* __restrict__ v2,
                     const double* __restrict__ design, double* __restrict__ beta,
                     int* __restrict__ good, unsigned* __restrict__ keep, long long n_studies,
                     long long n_voxels) {
  for (long long v = thread_id(); v < n_voxels; v += thread_count()) {
    const Bounds d = {lower, upper, c, v2, design, (int)n_studies, n_voxels, v};
    for (int k = 0; k < n_studies; k += 32) {
      const long long left = n_studies - k;
      keep[(k >> 5) * n_voxels + v] = left >= 32 ? ~0u : (1u << left) - 1u;
    }
    Sums s;
    double here[Q] = {}, least[TRI];
    int passes = 0;
    total(d, here, keep, -1, &s, least, nullptr);
    good[v] = newton(d, here, keep, -1, s, least, &passes);
    for (int p = 0; p < Q; ++p) beta[p * n_voxels + v] = here[p];
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
    fit_bounds_drop(const float* __restrict__ lower, const float* __restrict__ upper,
                    const double* __restrict__ c, const double* __restrict__ v2,
                    const double* __restrict__ design, const double* __restrict__ crit,
                    double* __restrict__ beta, int* __restrict__ good, unsigned* __restrict__ keep,
                    int* __restrict__ stage, double* __restrict__ best,
                    double* __restrict__ fits, double* __restrict__ guess,
                    double* __restrict__ work, unsigned* __restrict__ open,
                    unsigned* __restrict__ fine, int* __restrict__ dropped,
                    int* __restrict__ unfinished, long long n_studies, long long n_voxels,
                    long long most_passes) {
  const long long n = n_voxels;
  for (long long v = thread_id(); v < n; v += thread_count()) {
    if (stage[v] == DONE) continue;
    const Bounds d = {lower, upper, c, v2, design, (int)n_studies, n, v};
    const bool fresh = stage[v] == 0;
    Sums all;
    double here[Q], least[TRI];
    int passes = 1;
#pragma unroll
    for (int p = 0; p < Q; ++p) here[p] = beta[p * n + v];
    total(d, here, keep, -1, &all, least, fresh ? work : nullptr);
    if (fresh) {
      best[v] = INFINITE;
      for (int k = 0; k < n_studies; k += 32) {
        open[(k >> 5) * n + v] = keep[(k >> 5) * n + v];
        fine[(k >> 5) * n + v] = 0u;
      }
      const double now = criterion(crit, here);
#pragma unroll 1
      for (int k = 0; k < n_studies; ++k) {
        for (int p = 0; p < Q; ++p) fits[(k * Q + p) * n + v] = INFINITE;  // not solved
        if (!bit(keep, d, k)) continue;
        const Terms own = {0.0, work[k * n + v], work[(n_studies + k) * n + v], 0.0};
        double shift;
        if (MEAN) {
          const double rest = all.h[0] - own.h;
          shift = rest > 0.0 ? -(all.g[0] - own.g) / rest : 0.0;
        } else {
          Sums s = all;
          double floor[TRI], step[Q];
          const double weight = study_terms(fitted(d, k, here), load(d, k)).weight;
          for (int i = 0; i < TRI; ++i) floor[i] = least[i];
          add_terms(&s, d, k, own, -1.0);
          add_outer(floor, d, k, -weight);
          direction(d, here, keep, k, s, floor, step, &passes);
          shift = -criterion(crit, step);
          work[k * n + v] = fabs(now) - SURE_SHIFTS * fabs(shift);  // the least it may come to
        }
        guess[k * n + v] = fabs(now + shift);
      }
    }
    bool finished = false;
    for (bool begun = false; !begun || passes < most_passes; begun = true) {
      int k = -1;
      double nearest = 0.0;
#pragma unroll 1
      for (int i = 0; i < n_studies; ++i) {
        if (!bit(open, d, i)) continue;
        const double g = guess[i * n + v];
        if (k < 0 || g < nearest) {
          k = i;
          nearest = g;
        }
      }
      if (k < 0) {
        finished = true;
        break;
      }
      set_bit(open, d, k, false);
      Sums s = all;
      double fit[Q], floor[TRI];
      const Terms own = study_terms(fitted(d, k, here), load(d, k));
      add_terms(&s, d, k, own, -1.0);
#pragma unroll
      for (int i = 0; i < TRI; ++i) floor[i] = least[i];
      add_outer(floor, d, k, -own.weight);
#pragma unroll
      for (int p = 0; p < Q; ++p) fit[p] = here[p];
      if (newton(d, fit, keep, k, s, floor, &passes)) set_bit(fine, d, k, true);
#pragma unroll
      for (int p = 0; p < Q; ++p) fits[(k * Q + p) * n + v] = fit[p];
      const double value = fabs(criterion(crit, fit));
      if (value < best[v]) {
        best[v] = value;
        close_losers(d, value, keep, open, work, &passes);
      }
    }
    if (!finished) {
      stage[v] = 1;
      atomicAdd(unfinished, 1);
      continue;
    }
    int drop = -1;
    const double limit = best[v] + TIE;
#pragma unroll 1
    for (int k = 0; k < n_studies && drop < 0; ++k) {
      double fit[Q];
#pragma unroll
      for (int p = 0; p < Q; ++p) fit[p] = fits[(k * Q + p) * n + v];
      if (bit(keep, d, k) && fabs(fit[0]) < INFINITE && fabs(criterion(crit, fit)) <= limit)
        drop = k;
    }
    if (drop >= 0) {
      for (int p = 0; p < Q; ++p) beta[p * n + v] = fits[(drop * Q + p) * n + v];
      good[v] = good[v] && bit(fine, d, drop);
      set_bit(keep, d, drop, false);
    }
    dropped[v] = drop;
    stage[v] = DONE;
  }
}
