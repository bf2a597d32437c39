/* permuted_z_general.cu — z map of each permutation with covariates or REML.
   Twin: gpu_sdm/ops/permuted_z.py through pool.py::random_effects
   thread  one (voxel, permutation); grid-stride; right for any block up to BLOCK; no shared
           memory, barriers or atomics; effects and weights of the K studies in local memory
   inputs, output   as permuted_z.cu
   constants        TABLE (permuted_effect.cuh); DESIGN (K, Q) f64 with orthonormal columns, and
                    CONTRAST (Q) f64 in that basis: gpu_sdm/permute/device.py::general_table
   math    weighted least squares by sweeping the Q x Q Gram matrix; DerSimonian-Laird from the
           residuals (no cancelling sums) or REML by Fisher scoring; Rubin over M. Effects, weights
           and Rubin's sums in float32, the fit in REAL
   knobs   K, Q      studies and coefficients (needed)
           REML      1: REML, 0: DerSimonian-Laird
           REAL      float or double
           SUBJECTS  0: whole studies are exchanged, sums is not read
           RESCALE   0: the subjects' standard deviation is 1 and not estimated again
           BLOCK     largest block it is launched with
   edge    a NaN in gives NaN out; tau2 below 0 is 0                                            */

#ifndef K
#define K 11
#endif
#ifndef Q
#define Q 2
#endif
#ifndef REML
#define REML 0
#endif
#ifndef REAL
#define REAL float
#endif
#ifndef SUBJECTS
#define SUBJECTS 1
#endif
#ifndef BLOCK
#define BLOCK 256
#endif

#include "common.cuh"
#include "permuted_effect.cuh"
#include "random_effects.cuh"

#define REML_STEPS 200
#define REML_TOLERANCE ((REAL)1e-6)
#define LANES 32
#define ROW ((K + 3) / 4 * 4)  // of share

extern "C" {
__constant__ double DESIGN[K * Q];
__constant__ double CONTRAST[Q];
}

struct Fit {
  REAL cov[Q][Q];  // (X' W X)^-1
  REAL beta[Q];
};

// Invert a symmetric positive definite matrix in place by sweeping each pivot.
__device__ __forceinline__ void invert(REAL (*a)[Q]) {
#pragma unroll
  for (int p = 0; p < Q; ++p) {
    a[p][p] = 1 / a[p][p];
#pragma unroll
    for (int r = 0; r < Q; ++r) {
      if (r == p) continue;
      a[r][p] *= a[p][p];
#pragma unroll
      for (int c = 0; c < Q; ++c)
        if (c != p) a[r][c] -= a[r][p] * a[p][c];
    }
#pragma unroll
    for (int c = 0; c < Q; ++c)
      if (c != p) a[p][c] *= -a[p][p];
  }
}

// Add f x x' of study k to a.
__device__ __forceinline__ void add_outer(REAL (*a)[Q], int k, REAL f) {
#pragma unroll
  for (int r = 0; r < Q; ++r)
#pragma unroll
    for (int c = 0; c < Q; ++c) a[r][c] += f * (REAL)DESIGN[k * Q + r] * (REAL)DESIGN[k * Q + c];
}

__device__ __forceinline__ REAL fitted(const Fit& fit, int k) {
  REAL sum = 0;
#pragma unroll
  for (int q = 0; q < Q; ++q) sum += (REAL)DESIGN[k * Q + q] * fit.beta[q];
  return sum;
}

// Weighted least squares with weights 1 / (v + tau2), given w = 1 / v.
__device__ __forceinline__ void solve(const float* y, const float* w, REAL tau2, Fit* fit) {
  REAL right[Q];
#pragma unroll
  for (int r = 0; r < Q; ++r) {
    right[r] = 0;
#pragma unroll
    for (int c = 0; c < Q; ++c) fit->cov[r][c] = 0;
  }
#pragma unroll 1
  for (int k = 0; k < K; ++k) {
    const REAL weight = w[k] / (1 + tau2 * w[k]);
    add_outer(fit->cov, k, weight);
#pragma unroll
    for (int q = 0; q < Q; ++q) right[q] += weight * y[k] * (REAL)DESIGN[k * Q + q];
  }
  invert(fit->cov);
#pragma unroll
  for (int r = 0; r < Q; ++r) {
    fit->beta[r] = 0;
#pragma unroll
    for (int c = 0; c < Q; ++c) fit->beta[r] += fit->cov[r][c] * right[c];
  }
}

__device__ __forceinline__ REAL trace_of_product(const REAL (*a)[Q], const REAL (*b)[Q]) {
  REAL sum = 0;
#pragma unroll
  for (int r = 0; r < Q; ++r)
#pragma unroll
    for (int c = 0; c < Q; ++c) sum += a[r][c] * b[c][r];
  return sum;
}

#if REML
__device__ __forceinline__ REAL estimate_tau2(const float* y, const float* w, Fit* fit) {
  REAL mean = 0, variance = 0, t = 0;
#pragma unroll 1
  for (int k = 0; k < K; ++k) {
    mean += y[k] / (REAL)K;
    variance += 1 / ((REAL)K * w[k]);
  }
#pragma unroll 1
  for (int k = 0; k < K; ++k) t += (y[k] - mean) * (y[k] - mean);
  t = t / (K - 1) - variance;
  t = t < 0 ? 0 : t;
#pragma unroll 1
  for (int step = 0; step < REML_STEPS; ++step) {
    solve(y, w, t, fit);
    REAL second[Q][Q] = {}, third[Q][Q] = {}, product[Q][Q] = {};
    REAL squares = 0, trace = 0, information = 0;
#pragma unroll 1
    for (int k = 0; k < K; ++k) {
      const REAL weight = w[k] / (1 + t * w[k]), r = y[k] - fitted(*fit, k);
      squares += weight * r * (weight * r);
      trace += weight;
      information += weight * weight;
      add_outer(second, k, weight * weight);
      add_outer(third, k, weight * weight * weight);
    }
#pragma unroll
    for (int r = 0; r < Q; ++r)
#pragma unroll
      for (int c = 0; c < Q; ++c)
#pragma unroll
        for (int i = 0; i < Q; ++i) product[r][c] += fit->cov[r][i] * second[i][c];
#pragma unroll
    for (int r = 0; r < Q; ++r) trace -= product[r][r];
    information += trace_of_product(product, product) - 2 * trace_of_product(fit->cov, third);
    REAL next = t + (squares - trace) / information;
    next = next < 0 ? 0 : next;  // NaN stays
    const REAL moved = next > t ? next - t : t - next;
    t = next;
    if (!(moved > REML_TOLERANCE)) break;
  }
  return t;
}
#else
__device__ __forceinline__ REAL estimate_tau2(const float* y, const float* w, Fit* fit) {
  solve(y, w, 0, fit);
  REAL second[Q][Q] = {}, squares = 0, trace = 0;
#pragma unroll 1
  for (int k = 0; k < K; ++k) {
    const REAL weight = w[k], r = y[k] - fitted(*fit, k);
    squares += weight * r * r;
    trace += weight;
    add_outer(second, k, weight * weight);
  }
  const REAL t = (squares - (K - Q)) / (trace - trace_of_product(fit->cov, second));
  return t < 0 ? 0 : t;  // NaN stays
}
#endif

extern "C" __global__ void __launch_bounds__(BLOCK)
    permuted_z_general(const float* __restrict__ sums, const float* __restrict__ share,
                       const float* __restrict__ effects, float* __restrict__ z,
                       long long n_imputations, long long n_permutations, long long n_voxels,
                       long long block_first, long long block_size, long long first,
                       long long last) {
  const long long items = (last - first + LANES - 1) / LANES * n_permutations * LANES;
  for (long long i = thread_id(); i < items; i += thread_count()) {
    const long long v = first + i / LANES / n_permutations * LANES + i % LANES;
    const long long here = v - block_first;
    if (v >= last) continue;
    const long long p = i / LANES % n_permutations;
    const float* g = effects + here / LANES * n_imputations * K * LANES + here % LANES;
    float y[K], w[K];
    Rubin rubin;
    for (long long m = 0; m < n_imputations; ++m) {
#pragma unroll 1
      for (int k = 0; k < K; ++k) {
        const float e =
            SUBJECTS ? __ldg(sums + (k * n_permutations + p) * block_size + here) : 0.0f;
        const float effect = __ldg(g + (m * K + k) * LANES);
        float variance;
        permuted_effect(k, e, __ldg(share + p * ROW + k), effect, spread_of(effect), 0.0f, y + k,
                        &variance);
        w[k] = reciprocal(variance);
      }
      Fit fit;
      solve(y, w, estimate_tau2(y, w, &fit), &fit);
      REAL estimate = 0, variance = 0;
#pragma unroll
      for (int r = 0; r < Q; ++r) {
        estimate += (REAL)CONTRAST[r] * fit.beta[r];
#pragma unroll
        for (int c = 0; c < Q; ++c)
          variance += (REAL)CONTRAST[r] * (REAL)CONTRAST[c] * fit.cov[r][c];
      }
      if (m == 0) rubin.start((float)estimate);
      rubin.add((float)(estimate - rubin.shift), (float)variance);
    }
    z[p * n_voxels + v] = rubin.z((int)n_imputations);
  }
}
