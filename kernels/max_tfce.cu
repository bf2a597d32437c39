/* max_tfce.cu — largest TFCE score of each map and side. Twin: gpu_sdm/ops/max_tfce.py
   block   one map and side at a time, block-stride over 2 P of them; threads stride over voxels;
           any size, 1 included
   inputs  z (P, V) f32; neighbours (V, 6) i32, -1 where there is none;
           step_sum (STEPS) f64, sum of i^H over i <= n
   output  best (2, P) f64, the positive side first; written once
   scratch SCRATCH i32 words of each block of the grid, 8-byte aligned: gpu_sdm/permute/launch.py
   math    heights h = i dh, i = STEPS-1 .. 1, swept downward. The voxels of a height enter their
           bucket by counting sort and are joined to their neighbours by the union-find of
           union_find.cuh; the one thread that hooks a root lists it. Between barriers, then:
             1 enter the voxels of this height as roots of their own
             2 join them to every neighbour above this height; list the hooked roots
             3 pay what hooked roots and their new roots gained at their old size since they last
               changed (an exchange of `done` lets one thread pay a root that several met)
             4 add the sizes, keep the largest score: integer add and integer maximum
           Every sum has a fixed order and one writer, all else is integer and commutes: the bits
           of the result do not depend on the order of the threads.
   knobs   STEPS, EXTENT_POWER, HEIGHT_POWER as gpu_sdm/ops/tfce.py
   edge    no positive or an infinite maximum gives 0; a NaN anywhere gives NaN               */

#ifndef STEPS
#define STEPS 100
#endif
#ifndef EXTENT_POWER
#define EXTENT_POWER 0.5
#endif
#ifndef HEIGHT_POWER
#define HEIGHT_POWER 2.0
#endif

#include "common.cuh"
#include "union_find.cuh"

typedef unsigned long long u64;

__device__ __forceinline__ double power(double x, double exponent) {
  return exponent == 0.5 ? sqrt(x) : exponent == 2.0 ? x * x : pow(x, exponent);
}

// The largest float not above x > 0: for floats, z > not_above(x) says exactly z > x.
__device__ __forceinline__ float not_above(double x) {
  const float f = (float)x;
  return (double)f > x ? float_of(float_bits(f) - 1) : f;
}

// How many of the heights lie strictly below z; `scale` only guesses, the comparisons count.
__device__ __forceinline__ int level_of(float z, const float* height, float scale) {
  if (!(z > height[1])) return 0;
  int i = (int)(z * scale);
  i = i > STEPS - 1 ? STEPS - 1 : i < 1 ? 1 : i;
  while (i < STEPS - 1 && z > height[i + 1]) ++i;
  while (!(z > height[i])) --i;
  return i;
}

// Score a cluster gained at constant size from height `from` - 1 down to height `to` + 1.
__device__ __forceinline__ double gain(int size, const double* step_sum, int from, int to) {
  return power((double)size, EXTENT_POWER) * (step_sum[from - 1] - step_sum[to]);
}

extern "C" __global__ void max_tfce(const float* __restrict__ z, const int* __restrict__ neighbours,
                                    const double* __restrict__ step_sum, double* __restrict__ best,
                                    int* __restrict__ scratch, long long n_maps,
                                    long long n_voxels) {
  __shared__ float height[STEPS + 1];
  __shared__ int start[STEPS], fill[STEPS];
  __shared__ int n_hooked, nan;
  __shared__ unsigned top;
  __shared__ u64 winner;

  const int V = (int)n_voxels;
  const long long words = 7 * n_voxels + n_voxels % 2;
  int* mine = scratch + blockIdx.x * words;
  u64* score = (u64*)mine;       // (V) bits of a double >= 0, which order as integers
  int* parent = mine + 2 * (n_voxels);
  int* size = parent + V;        // (V) of a root: its voxels
  int* done = size + V;          // (V) of a root: heights down to this one are in its score
  int* order = done + V;         // (V) voxels, highest bucket first
  int* hooked = order + V;       // (V) roots that ceased to be roots at this height

  for (long long map = blockIdx.x; map < 2 * n_maps; map += gridDim.x) {
    const float sign = map < n_maps ? 1.0f : -1.0f;
    const float* row = z + map % n_maps * n_voxels;
    if (threadIdx.x == 0) {
      top = 0;
      nan = 0;
      winner = 0;
    }
    __syncthreads();

    float highest = 0.0f;
    int bad = 0;
    for (int v = threadIdx.x; v < V; v += blockDim.x) {
      const float value = sign * row[v];
      bad |= value != value;
      highest = value > highest ? value : highest;
    }
    atomicMax(&top, float_bits(highest));
    if (bad) atomicOr(&nan, 1);
    __syncthreads();
    const float peak = float_of(top);
    const int any_nan = nan;
    __syncthreads();  // thread 0 may clear them for the next map
    if (any_nan || !(peak > 0.0f) || peak > 3.4028235e38f) {
      if (threadIdx.x == 0) best[map] = any_nan ? (double)not_a_number() : 0.0;
      continue;
    }

    const double dh = (double)peak / STEPS;
    for (int i = threadIdx.x; i < STEPS; i += blockDim.x) {
      height[i] = not_above(i * dh);
      fill[i] = 0;
    }
    __syncthreads();
    const float scale = (float)(1.0 / dh);
    for (int v = threadIdx.x; v < V; v += blockDim.x) {
      const int i = level_of(sign * row[v], height, scale);
      if (i > 0) atomicAdd(&fill[i], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int begin = 0;
      for (int i = STEPS - 1; i >= 0; --i) {
        start[i] = begin;
        begin += i > 0 ? fill[i] : 0;
        fill[i] = start[i];
      }
    }
    __syncthreads();
    for (int v = threadIdx.x; v < V; v += blockDim.x) {
      const int i = level_of(sign * row[v], height, scale);
      if (i > 0) order[atomicAdd(&fill[i], 1)] = v;
    }
    __syncthreads();

    for (int i = STEPS - 1; i > 0; --i) {
      const int from = start[i], to = start[i - 1];
      if (from == to) continue;
      for (int j = from + threadIdx.x; j < to; j += blockDim.x) {
        const int v = order[j];
        parent[v] = v;
        size[v] = 1;
        score[v] = 0;
        done[v] = i + 1;
      }
      if (threadIdx.x == 0) n_hooked = 0;
      __syncthreads();

      for (int j = from + threadIdx.x; j < to; j += blockDim.x) {
        const int v = order[j];
        for (int d = 0; d < 6; ++d) {
          const int u = neighbours[6 * (long long)v + d];
          if (u < 0) continue;
          const float there = sign * row[u];
          if (!(there > height[i])) continue;
          // Of two voxels that enter together, the later in scan order joins them.
          if (d > 2 && (i == STEPS - 1 || !(there > height[i + 1]))) continue;
          const int gone = join(parent, v, u);
          if (gone >= 0) hooked[atomicAdd(&n_hooked, 1)] = gone;
        }
      }
      __syncthreads();

      const int n = n_hooked;
      for (int j = threadIdx.x; j < n; j += blockDim.x) {
        const int a = hooked[j], root = find_root(parent, a);
        if (done[a] > i + 1)
          score[a] = double_bits(double_of(score[a]) + gain(size[a], step_sum, done[a], i));
        const int before = atomicExch(done + root, i + 1);
        if (before > i + 1)
          score[root] = double_bits(double_of(score[root]) + gain(size[root], step_sum, before, i));
      }
      __syncthreads();

      for (int j = threadIdx.x; j < n; j += blockDim.x) {
        const int a = hooked[j], root = find_root(parent, a);
        atomicAdd(size + root, size[a]);
        atomicMax(score + root, score[a]);
      }
      // The barrier after the next height's entries separates this from what it would disturb.
    }
    __syncthreads();

    u64 largest = 0;
    for (int j = threadIdx.x; j < start[0]; j += blockDim.x) {
      const int v = order[j];
      if (parent[v] != v) continue;
      const u64 total = double_bits(double_of(score[v]) + gain(size[v], step_sum, done[v], 0));
      largest = total > largest ? total : largest;
    }
    atomicMax(&winner, largest);
    __syncthreads();
    if (threadIdx.x == 0) best[map] = double_of(winner) * power(dh, HEIGHT_POWER);
    __syncthreads();
  }
}
