/* arrange_effects.cu — the effects of one imputation, in the order and unit permuted_z reads them.
   Twin: gpu_sdm/permute/voxel_blocks.py::arranged
   thread  one element of the output; grid-stride, any block
   inputs  effects  (K, B) f32 of imputation m;  scale (K) f32
   output  arranged (G, M, K, 32) f32, its imputation m: groups of 32 voxels, so that a thread goes
                    through all studies and imputations by constant steps; past B: 0            */

#include "common.cuh"

#define LANES 32

extern "C" __global__ void arrange_effects(const float* __restrict__ effects,
                                           const float* __restrict__ scale,
                                           float* __restrict__ arranged, long long m,
                                           long long n_imputations, long long n_studies,
                                           long long n_voxels) {
  const long long groups = (n_voxels + LANES - 1) / LANES, of_group = n_studies * LANES;
  for (long long i = thread_id(); i < groups * of_group; i += thread_count()) {
    const long long group = i / of_group, k = i % of_group / LANES;
    const long long v = group * LANES + i % LANES;
    const float g = v < n_voxels ? effects[k * n_voxels + v] * scale[k] : 0.0f;
    arranged[(group * n_imputations + m) * of_group + i % of_group] = g;
  }
}
