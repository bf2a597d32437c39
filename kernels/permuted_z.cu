/* permuted_z.cu — z map of each permutation, mean model. Twin: gpu_sdm/ops/permuted_z.py
   thread  one voxel and R permutations; grid-stride; right for any block up to BLOCK; no shared
           memory, barriers or atomics. 32 voxels x all permutations are neighbours in the grid:
           the warps of a block read the same effects, which reach them through L1.
   inputs  sums    (K, P, B) f32 permuted residual means of voxels block_first .. block_first + B
           share   (P, K) f32    f of gpu_sdm/ops/permuted_effects.py, divided by J
           effects (M, K, B) f32 imputed Hedges g of those    all read-only, contiguous
   output  z       (P, V) f32    voxels first .. last - 1 of every row, each written once
   math    permuted_effect.cuh, then DerSimonian-Laird per imputation and Rubin over M
           (random_effects.cuh); float32, held within 1e-4 of the float64 twin by a test
   knobs   K          studies (needed)
           R          permutations of one thread: each effect is loaded once for all of them
           KEEP       1: effects and weights wait in registers for tau2; 0: computed twice (large K)
           HOLD_SUMS  1: residual means stay in registers; 0: read again for every imputation
           SUBJECTS   0: whole studies are exchanged, sums is not read
           BLOCK      largest block it is launched with
   edge    a NaN in an effect, residual mean or share gives NaN in z, never 0               */

#ifndef K
#define K 11
#endif
#ifndef R
#define R 1
#endif
#ifndef KEEP
#define KEEP 1
#endif
#ifndef HOLD_SUMS
#define HOLD_SUMS 1
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

#define LANES 32  // voxels side by side: one coalesced 128-byte read
// n_studies is K: a branch that the compiler cannot see through keeps it from loading all studies
// ahead, which spills (146 registers in place of 255 and 600 bytes of spills at K = 50).
#define GROUP 8
#define STUDIES_END(k) \
  if ((k) % GROUP == 0 && (k) >= (int)n_studies) break;
#if KEEP
#define UNROLL_STUDIES _Pragma("unroll")  // y[k] and w[k] are registers only if k is constant
#else
#define UNROLL_STUDIES _Pragma("unroll 4")
#endif

extern "C" __global__ void __launch_bounds__(BLOCK, 1)
    permuted_z(const float* __restrict__ sums, const float* __restrict__ share,
               const float* __restrict__ effects, float* __restrict__ z, long long n_imputations,
               long long n_permutations, long long n_voxels, long long block_first,
               long long block_size, long long first, long long last, long long n_studies) {
  const long long rows = (n_permutations + R - 1) / R;
  const long long items = (last - first + LANES - 1) / LANES * rows * LANES;
  for (long long i = thread_id(); i < items; i += thread_count()) {
    const long long here = first - block_first + i / LANES / rows * LANES + i % LANES;
    if (here >= last - block_first) continue;
    const long long p0 = i / LANES % rows * R;

    const float* f[R];   // (K,) of each permutation
    const float* at[R];  // this voxel's residual means, studies `stride` apart
    const int stride = (int)(n_permutations * block_size);  // below 2^31: launch.py sees to it
    Rubin rubin[R];
#if SUBJECTS && HOLD_SUMS
    float e[R][K];
#endif
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const long long p = p0 + r < n_permutations ? p0 + r : n_permutations - 1;
      f[r] = share + p * K;
      at[r] = sums + p * block_size + here;
#if SUBJECTS && HOLD_SUMS
      UNROLL_STUDIES
      for (int k = 0; k < K; ++k) e[r][k] = at[r][(long long)k * stride];
#endif
    }

#if !SUBJECTS
#define RESIDUAL_MEAN(r, k) 0.0f
#elif HOLD_SUMS
#define RESIDUAL_MEAN(r, k) e[r][k]
#else
#define RESIDUAL_MEAN(r, k) __ldg(at[r] + (long long)(k) * far)
#endif

    // The shift: fixed-effect mean of the first imputation, in a loop of its own.
    Sums s[R];
#pragma unroll
    for (int r = 0; r < R; ++r) s[r].clear();
#pragma unroll 1
    for (int k = 0; k < K; ++k) {
      const float effect = __ldg(effects + k * block_size + here);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        float y1, w1;
        const float e1 = SUBJECTS ? __ldg(at[r] + (long long)k * stride) : 0.0f;
        permuted_effect(k, e1, __ldg(f[r] + k), effect, 0.0f, &y1, &w1);
        s[r].add(y1, w1);
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) rubin[r].start(s[r].wy * reciprocal(s[r].w));

#pragma unroll 1
    for (long long m = 0; m < n_imputations; ++m) {
      const float* g = effects + m * K * block_size + here;
      // Neither offsets nor shares are worth a register per study.
      const int hop = forget((int)block_size), far = forget(stride);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        s[r].clear();
        f[r] = forget(f[r]);
        if (!HOLD_SUMS) at[r] = forget(at[r]);
      }
#if KEEP
      float y[R][K], w[R][K];
#endif
      UNROLL_STUDIES
      for (int k = 0; k < K; ++k) {
        STUDIES_END(k)
        const float effect = __ldg(g + (long long)k * hop);
#pragma unroll
        for (int r = 0; r < R; ++r) {
#if !KEEP
          float y1, w1;
#else
          float &y1 = y[r][k], &w1 = w[r][k];
#endif
          permuted_effect(k, RESIDUAL_MEAN(r, k), __ldg(f[r] + k), effect, rubin[r].shift, &y1, &w1);
          s[r].add(y1, w1);
        }
      }
      float tau2[R], total[R], weighted[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        tau2[r] = s[r].tau2(K);
        total[r] = weighted[r] = 0.0f;
      }
      UNROLL_STUDIES
      for (int k = 0; k < K; ++k) {
        STUDIES_END(k)
#if !KEEP
        const float effect = __ldg(g + (long long)k * hop);
#endif
#pragma unroll
        for (int r = 0; r < R; ++r) {
#if !KEEP
          float y1, w1;
          permuted_effect(k, RESIDUAL_MEAN(r, k), __ldg(f[r] + k), effect, rubin[r].shift, &y1, &w1);
#else
          const float y1 = y[r][k], w1 = w[r][k];
#endif
          const float weight = w1 * reciprocal(fmaf(tau2[r], w1, 1.0f));
          total[r] += weight;
          weighted[r] = fmaf(weight, y1, weighted[r]);
        }
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float variance = reciprocal(total[r]);
        rubin[r].add(weighted[r] * variance, variance);
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r)
      if (p0 + r < n_permutations) z[(p0 + r) * n_voxels + block_first + here] = rubin[r].z((int)n_imputations);
  }
}
