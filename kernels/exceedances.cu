/* exceedances.cu — in how many maps each voxel is at least as large as observed: the counts of a
   voxelwise permutation p. Twin: gpu_sdm/ops/exceedances.py
   thread  one voxel and all maps; grid-stride, any block; no shared memory, barriers or atomics
   inputs  z (P, V) f32; observed (V) f32; tolerance f32: what is less by no more counts as equal
   output  count (2, V) i32, the positive side first; added to, so that maps can come in parts
   math    exact: one float subtraction and one comparison per side
   edge    a NaN counts on both sides, so that it can only make p larger                    */

#include "common.cuh"

extern "C" __global__ void exceedances(const float* __restrict__ z,
                                       const float* __restrict__ observed,
                                       int* __restrict__ count, float tolerance, long long n_maps,
                                       long long n_voxels) {
  for (long long v = thread_id(); v < n_voxels; v += thread_count()) {
    const float up = observed[v] - tolerance, down = -observed[v] - tolerance;
    int above = 0, below = 0;
    for (long long p = 0; p < n_maps; ++p) {
      const float value = z[p * n_voxels + v];
      above += !(value < up);
      below += !(-value < down);
    }
    count[v] += above;
    count[n_voxels + v] += below;
  }
}
