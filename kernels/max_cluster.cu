/* max_cluster.cu — largest extent and mass of the clusters of each map and side above a forming
   threshold. Twin: gpu_sdm/ops/max_cluster.py
   block   one map and side at a time, block-stride over 2 P of them; threads stride over voxels;
           any size, 1 included
   inputs  z (P, V) f32; neighbours (V, NEIGHBOURS) i32, -1 where there is none, the first half of
           a row before the voxel in scan order; threshold f32, at least 0
   output  best (2, 2, P) f64: extent in voxels, then mass; of each the positive side first
   scratch SCRATCH 4 V i32 words of each block of the grid, 8-byte aligned
   math    joined by the union-find of union_find.cuh, summed at the roots between barriers. Mass,
           the sum of z - threshold, is kept in integers of 2^-24: exact for thresholds of 0.5 and
           more, and the order of the threads changes no bit
   knobs   NEIGHBOURS  6: faces; 26: faces, edges and corners
   edge    "above" is strict; no voxel above gives 0; z above 2^16 counts as 2^16 in the mass; a
           NaN anywhere gives NaN                                                            */

#ifndef NEIGHBOURS
#define NEIGHBOURS 6
#endif

#include "common.cuh"
#include "union_find.cuh"

typedef unsigned long long u64;

#define UNIT 16777216.0
#define HIGHEST 65536.0f

__device__ __forceinline__ u64 in_units(float z) {
  return (u64)rint((double)(z > HIGHEST ? HIGHEST : z) * UNIT);
}

extern "C" __global__ void max_cluster(const float* __restrict__ z,
                                       const int* __restrict__ neighbours,
                                       double* __restrict__ best, int* __restrict__ scratch,
                                       float threshold, long long n_maps, long long n_voxels) {
  __shared__ int nan, largest;
  __shared__ u64 heaviest;

  const int V = (int)n_voxels;
  int* mine = scratch + blockIdx.x * 4 * n_voxels;
  u64* mass = (u64*)mine;          // (V) of a root: of its voxels, in units of 2^-24
  int* parent = mine + 2 * n_voxels;
  int* size = parent + V;          // (V) of a root: its voxels

  for (long long map = blockIdx.x; map < 2 * n_maps; map += gridDim.x) {
    const float sign = map < n_maps ? 1.0f : -1.0f;
    const float* row = z + map % n_maps * n_voxels;
    if (threadIdx.x == 0) {
      nan = 0;
      largest = 0;
      heaviest = 0;
    }
    __syncthreads();

    int bad = 0;
    for (int v = threadIdx.x; v < V; v += blockDim.x) {
      const float value = sign * row[v];
      bad |= value != value;
      if (!(value > threshold)) continue;
      parent[v] = v;
      size[v] = 0;
      mass[v] = 0;
    }
    if (bad) atomicOr(&nan, 1);
    __syncthreads();

    for (int v = threadIdx.x; v < V; v += blockDim.x) {
      if (!(sign * row[v] > threshold)) continue;
      for (int d = 0; d < NEIGHBOURS / 2; ++d) {
        const int u = neighbours[NEIGHBOURS * (long long)v + d];
        if (u >= 0 && sign * row[u] > threshold) join(parent, v, u);
      }
    }
    __syncthreads();

    for (int v = threadIdx.x; v < V; v += blockDim.x) {
      const float value = sign * row[v];
      if (!(value > threshold)) continue;
      const int root = find_root(parent, v);
      atomicAdd(size + root, 1);
      atomicAdd(mass + root, in_units(value) - in_units(threshold));
    }
    __syncthreads();

    for (int v = threadIdx.x; v < V; v += blockDim.x) {
      if (!(sign * row[v] > threshold) || parent[v] != v) continue;
      atomicMax(&largest, size[v]);
      atomicMax(&heaviest, mass[v]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      best[map] = nan ? (double)not_a_number() : (double)largest;
      best[2 * n_maps + map] = nan ? (double)not_a_number() : (double)heaviest / UNIT;
    }
    __syncthreads();  // thread 0 clears what it has just read
  }
}
