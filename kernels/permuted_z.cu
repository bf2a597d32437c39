/* permuted_z.cu — z map of each permutation, mean model. Twin: gpu_sdm/ops/permuted_z.py
   thread  one voxel and R permutations; grid-stride; right for any block up to BLOCK; no barriers
           or atomics, and of shared memory only its own column. 32 voxels x all permutations are
           neighbours in the grid: the warps of a block read the same effects, through L1.
   inputs  sums    (K, P, B) f32 permuted residual means of voxels block_first .. block_first + B
           share   (P, ROW) f32  f of permuted_effect.cuh; rows of K, padded to whole fours
           effects (G, M, K, 32) f32 imputed effects of those, 32 voxels a group
                   (arrange_effects.cu)                   all in the unit of permuted_effect.cuh,
                                                          read-only, on 16 bytes
   output  z       (P, V) f32    voxels first .. last - 1 of every row, each written once; first
                                 less block_first is a multiple of 32
   math    permuted_effect.cuh, then DerSimonian-Laird per imputation and Rubin over M
           (random_effects.cuh); float32, held within 1e-4 of the float64 twin by a test
   knobs   K          studies (needed)
           R          permutations of one thread: each effect is loaded once for all of them
           KEEP       so many studies' effects and variances wait in registers for tau2; those of
                      the others are computed twice
           SUMS       where residual means wait: 2 registers, 1 shared memory, 0 read every time
           SUBJECTS   0: whole studies are exchanged, sums is not read
           RESCALE    0: the subjects' standard deviation is 1 and not estimated again
           BLOCK      largest block it is launched with
           BLOCKS     so many of them a multiprocessor shall hold: bounds the registers
   edge    a NaN in an effect, residual mean or share gives NaN in z, never 0               */

#ifndef K
#define K 11
#endif
#ifndef R
#define R 1
#endif
#ifndef KEEP
#define KEEP K
#endif
#ifndef SUMS
#define SUMS 0
#endif
#ifndef SUBJECTS
#define SUBJECTS 1
#endif
#ifndef BLOCK
#define BLOCK 256
#endif
#ifndef BLOCKS
#define BLOCKS 1
#endif

#include "common.cuh"
#include "permuted_effect.cuh"
#include "random_effects.cuh"

#define LANES 32                 // voxels side by side: one coalesced 128-byte read
#define ROW ((K + 3) / 4 * 4)    // of share
#define KEPT (KEEP > 0 ? KEEP : 1)
// n_studies is K: a branch that the compiler cannot see through keeps it from loading all studies
// ahead, which spills.
#define GROUP 8
// Blackwell wants registers in pairs: where it spilled, one block fewer.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 && BLOCKS == 3 && KEEP * R > 44
#define RESIDENT 2
#else
#define RESIDENT BLOCKS
#endif
#define STUDIES_END(k) \
  if ((k) % GROUP == 0 && (k) >= (int)n_studies) break;

#if !SUBJECTS
#define RESIDUAL_MEAN(r, k) 0.0f
#elif SUMS == 2
#define RESIDUAL_MEAN(r, k) held[r][k]
#elif SUMS == 1
#define RESIDUAL_MEAN(r, k) held[r][k][column]
#else
#define RESIDUAL_MEAN(r, k) __ldg(at[r] + (long long)(k) * stride)
#endif

extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
    permuted_z(const float* __restrict__ sums, const float* __restrict__ share,
               const float* __restrict__ effects, float* __restrict__ z, long long n_imputations,
               long long n_permutations, long long n_voxels, long long block_first,
               long long block_size, long long first, long long last, long long n_studies) {
#if SUBJECTS && SUMS == 1
  __shared__ float held[R][K][BLOCK];
#endif
  const long long rows = (n_permutations + R - 1) / R;
  const long long items = (last - first + LANES - 1) / LANES * rows * LANES;
  for (long long i = thread_id(); i < items; i += thread_count()) {
    const int here = (int)(first - block_first + i / LANES / rows * LANES + i % LANES);
    if (here >= last - block_first) continue;
    const int p0 = (int)(i / LANES % rows * R);
    const float* g = effects + here / LANES * n_imputations * K * LANES + here % LANES;

    const float* f[R];   // (K,) of each permutation
    const float* at[R];  // this voxel's residual means, studies `stride` apart
    const long long stride = n_permutations * block_size;
    Rubin rubin[R];
#if SUBJECTS && SUMS == 2
    float held[R][K];
#endif
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const long long p = p0 + r < n_permutations ? p0 + r : n_permutations - 1;
      f[r] = share + p * ROW;
      at[r] = sums + p * block_size + here;
#if SUBJECTS && SUMS == 2
#pragma unroll
      for (int k = 0; k < K; ++k) held[r][k] = at[r][k * stride];
#elif SUBJECTS && SUMS == 1
      for (int k = 0; k < K; ++k) held[r][k][threadIdx.x] = at[r][k * stride];
#endif
    }

    // The shift: fixed-effect mean of the first imputation, in a loop of its own.
    Sums s[R];
#pragma unroll
    for (int r = 0; r < R; ++r) s[r].clear();
#pragma unroll 1
    for (int k = 0; k < K; ++k) {
      const float effect = __ldg(g + k * LANES), spread = spread_of(effect);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        float y1, v1;
        const float e1 = SUBJECTS ? __ldg(at[r] + k * stride) : 0.0f;
        permuted_effect(k, e1, __ldg(f[r] + k), effect, spread, 0.0f, &y1, &v1);
        s[r].add(y1, reciprocal(v1));
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) rubin[r].start(s[r].wy * reciprocal(s[r].w));

#pragma unroll 1
    for (long long m = 0; m < n_imputations; ++m, g += K * LANES) {
      // Neither shares nor residual means are worth a register per study.
#pragma unroll
      for (int r = 0; r < R; ++r) {
        s[r].clear();
        f[r] = forget(f[r]);
        if (SUMS == 0) at[r] = forget(at[r]);
      }
#if SUBJECTS && SUMS == 1
      const int column = forget((int)threadIdx.x);
#endif
      float y[R][KEPT], v[R][KEPT];
      Four shares[R];
#pragma unroll
      for (int k = 0; k < KEEP; ++k) {
        STUDIES_END(k)
        const float effect = __ldg(g + k * LANES), spread = spread_of(effect);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          if (k % 4 == 0) shares[r] = four(f[r] + k);
          permuted_effect(k, RESIDUAL_MEAN(r, k), shares[r].x[k % 4], effect, spread,
                          rubin[r].shift, &y[r][k], &v[r][k]);
          s[r].add(y[r][k], reciprocal(v[r][k]));
        }
      }
#pragma unroll 4
      for (int k = KEEP; k < K; ++k) {
        const float effect = __ldg(g + k * LANES), spread = spread_of(effect);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          float y1, v1;
          permuted_effect(k, RESIDUAL_MEAN(r, k), __ldg(f[r] + k), effect, spread, rubin[r].shift,
                          &y1, &v1);
          s[r].add(y1, reciprocal(v1));
        }
      }
      float tau2[R], total[R], weighted[R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        tau2[r] = s[r].tau2(K);
        total[r] = weighted[r] = 0.0f;
      }
      // Two weights of one reciprocal, 1/a = b/(ab): special functions are what a card has least of.
#pragma unroll
      for (int k = 0; k < KEEP; k += 2) {
        STUDIES_END(k)
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const float a = v[r][k] + tau2[r], b = k + 1 < KEEP ? v[r][k + 1] + tau2[r] : 1.0f;
          const float inverse = reciprocal(a * b), weight = inverse * b;
          total[r] += weight;
          weighted[r] = fmaf(weight, y[r][k], weighted[r]);
          if (k + 1 < KEEP) {
            const float other = inverse * a;
            total[r] += other;
            weighted[r] = fmaf(other, y[r][k + 1], weighted[r]);
          }
        }
      }
#pragma unroll 4
      for (int k = KEEP; k < K; ++k) {
        const float effect = __ldg(g + k * LANES), spread = spread_of(effect);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          float y1, v1;
          permuted_effect(k, RESIDUAL_MEAN(r, k), __ldg(f[r] + k), effect, spread, rubin[r].shift,
                          &y1, &v1);
          const float weight = reciprocal(v1 + tau2[r]);
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
      if (p0 + r < n_permutations)
        z[(p0 + r) * n_voxels + block_first + here] = rubin[r].z((int)n_imputations);
  }
}
