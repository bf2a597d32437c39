/* max_statistic.cu — largest z and largest -z of each map. Twin: gpu_sdm/ops/max_tfce.py
   block   one map at a time, block-stride over the maps, threads stride over its voxels; any size
   inputs  z (P, V) f32
   output  best (2, P) f32, the positive side first; written once
   math    exact: floats are compared as integers of the same order; integer atomics in shared
           memory, so the order of the threads does not matter
   edge    a NaN anywhere in a map gives NaN on both sides; infinities are values              */

#include "common.cuh"

#define LOWEST (-2147483647 - 1)

// Integers ordered as the floats they stand for.
__device__ __forceinline__ int rank_of(float x) {
  const int b = (int)float_bits(x);
  return b < 0 ? b ^ 0x7fffffff : b;
}

__device__ __forceinline__ float value_of(int rank) {
  return float_of((unsigned)(rank < 0 ? rank ^ 0x7fffffff : rank));
}

extern "C" __global__ void max_statistic(const float* __restrict__ z, float* __restrict__ best,
                                         long long n_maps, long long n_voxels) {
  __shared__ int top, low, nan;
  for (long long map = blockIdx.x; map < n_maps; map += gridDim.x) {
    if (threadIdx.x == 0) {
      top = low = LOWEST;
      nan = 0;
    }
    __syncthreads();
    const float* row = z + map * n_voxels;
    int highest = LOWEST, lowest = LOWEST, bad = 0;
    for (long long v = threadIdx.x; v < n_voxels; v += blockDim.x) {
      const float value = row[v];
      bad |= value != value;
      const int up = rank_of(value), down = rank_of(-value);
      highest = up > highest ? up : highest;
      lowest = down > lowest ? down : lowest;
    }
    atomicMax(&top, highest);
    atomicMax(&low, lowest);
    if (bad) atomicOr(&nan, 1);
    __syncthreads();
    if (threadIdx.x == 0) {
      best[map] = nan ? not_a_number() : value_of(top);
      best[n_maps + map] = nan ? not_a_number() : value_of(low);
    }
    __syncthreads();  // thread 0 clears what it has just read
  }
}
