/* tfce_map.cu — TFCE score of every voxel of each map and side. Twin: gpu_sdm/ops/tfce.py
   block   one map and side at a time, block-stride over 2 P of them; threads stride over voxels;
           any size, 1 included
   inputs  as max_tfce.cu
   output  scores (2, P, V) f64, the positive side first; every element written once
   scratch as max_tfce.cu
   math    the sweep of tfce.cuh; a root that is hooked remembers the root that it hangs from at the
           end of that height, and how much more it had scored until then. Such links lead to roots
           of lower and lower heights, less than STEPS of them: the score of a voxel is that of its
           last root and the differences on the way there. One writer each: no bit depends on
           the order of the threads
   knobs   those of tfce.cuh
   edge    no positive or an infinite maximum gives 0 everywhere; a NaN anywhere NaN everywhere */

#include "common.cuh"
#include "union_find.cuh"
#include "tfce.cuh"

struct KeepDifference {
  u64* score;  // of a hooked root: bits of its score less that of the root it hangs from
  int* done;   // of a hooked root: the root it hangs from
  __device__ __forceinline__ void operator()(int a, int root) const {
    score[a] = double_bits(double_of(score[a]) - double_of(score[root]));
    done[a] = root;
  }
};

extern "C" __global__ void tfce_map(const float* __restrict__ z, const int* __restrict__ neighbours,
                                    const double* __restrict__ step_sum,
                                    double* __restrict__ scores, int* __restrict__ scratch,
                                    long long n_maps, long long n_voxels) {
  const int V = (int)n_voxels;
  const long long words = 7 * n_voxels + n_voxels % 2;
  const Forest f = forest_of(scratch + blockIdx.x * words, n_voxels);

  for (long long map = blockIdx.x; map < 2 * n_maps; map += gridDim.x) {
    double* out = scores + map * n_voxels;
    const Flooded found = flood(z + map % n_maps * n_voxels, map < n_maps ? 1.0f : -1.0f, V,
                                neighbours, step_sum, f, KeepDifference{f.score, f.done});
    const double nowhere = found.dh > 0 ? 0.0 : found.dh;
    for (int v = threadIdx.x; v < V; v += blockDim.x) out[v] = nowhere;
    for (int j = threadIdx.x; j < found.n_above; j += blockDim.x) {
      const int v = f.order[j];
      if (f.parent[v] != v) continue;
      const double rest = gain(f.size[v], step_sum, f.done[v], 0);
      f.score[v] = double_bits(double_of(f.score[v]) + rest);
    }
    __syncthreads();
    for (int j = threadIdx.x; j < found.n_above; j += blockDim.x) {
      const int v = f.order[j];
      double total = 0;
      int a = v;
      for (; f.parent[a] != a; a = f.done[a]) total += double_of(f.score[a]);
      out[v] = (total + double_of(f.score[a])) * power(found.dh, HEIGHT_POWER);
    }
    // The forest is written again only after barriers of the next map, which all threads must reach.
  }
}
