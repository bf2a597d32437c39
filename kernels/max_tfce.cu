/* max_tfce.cu — largest TFCE score of each map and side. Twin: gpu_sdm/ops/max_tfce.py
   block   one map and side at a time, block-stride over 2 P of them; threads stride over voxels;
           any size, 1 included
   inputs  z (P, V) f32; neighbours (V, 6) i32, -1 where there is none;
           step_sum (STEPS) f64, sum of i^H over i <= n
   output  best (2, P) f64, the positive side first; written once
   scratch SCRATCH i32 words of each block of the grid, 8-byte aligned: gpu_sdm/permute/launch.py
   math    the sweep of tfce.cuh; where clusters meet the largest score is kept: what is added
           later is common to all their voxels. An integer maximum: its order changes no bit
   knobs   those of tfce.cuh
   edge    no positive or an infinite maximum gives 0; a NaN anywhere gives NaN               */

#include "common.cuh"
#include "union_find.cuh"
#include "tfce.cuh"

struct KeepLargest {
  u64* score;
  __device__ __forceinline__ void operator()(int a, int root) const {
    atomicMax(score + root, score[a]);
  }
};

extern "C" __global__ void max_tfce(const float* __restrict__ z, const int* __restrict__ neighbours,
                                    const double* __restrict__ step_sum, double* __restrict__ best,
                                    int* __restrict__ scratch, long long n_maps,
                                    long long n_voxels) {
  __shared__ u64 winner;
  const long long words = 7 * n_voxels + n_voxels % 2;
  const Forest f = forest_of(scratch + blockIdx.x * words, n_voxels);

  for (long long map = blockIdx.x; map < 2 * n_maps; map += gridDim.x) {
    if (threadIdx.x == 0) winner = 0;
    const Flooded found = flood(z + map % n_maps * n_voxels, map < n_maps ? 1.0f : -1.0f,
                                (int)n_voxels, neighbours, step_sum, f, KeepLargest{f.score});
    if (!(found.dh > 0)) {
      if (threadIdx.x == 0) best[map] = found.dh;
      continue;
    }
    u64 largest = 0;
    for (int j = threadIdx.x; j < found.n_above; j += blockDim.x) {
      const int v = f.order[j];
      if (f.parent[v] != v) continue;
      const double rest = gain(f.size[v], step_sum, f.done[v], 0);
      const u64 total = double_bits(double_of(f.score[v]) + rest);
      largest = total > largest ? total : largest;
    }
    atomicMax(&winner, largest);
    __syncthreads();
    if (threadIdx.x == 0) best[map] = double_of(winner) * power(found.dh, HEIGHT_POWER);
    __syncthreads();
  }
}
