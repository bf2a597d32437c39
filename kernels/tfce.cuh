// tfce.cuh — the clusters of one map and side at all heights, by a block of threads.
// Needs common.cuh and union_find.cuh. Twin: gpu_sdm/ops/tfce.py
// defines: Forest, forest_of     scratch of a block: 7 V words, 8-byte aligned
//          Flooded, flood        the sweep; what it leaves in the forest
//          gain, power           what a cluster gains between two heights
// knobs:   STEPS, EXTENT_POWER, HEIGHT_POWER as gpu_sdm/ops/tfce.py
//
// Heights h = i dh, i = STEPS-1 .. 1, are swept downward. The voxels of a height enter their bucket
// by counting sort and are joined to their neighbours by the union-find of union_find.cuh; the one
// thread that hooks a root lists it. Between barriers, then:
//   1 enter the voxels of this height as roots of their own
//   2 join them to every neighbour above this height; list the hooked roots
//   3 pay what hooked roots and their new roots gained at their old size since they last changed
//     (an exchange of `done` lets one thread pay a root that several met)
//   4 add the sizes; `hang` does with the scores what the kernel wants
// Every sum has a fixed order and one writer, all else is integer and commutes: the bits of the
// result do not depend on the order of the threads, if `hang` keeps to that.

#ifndef STEPS
#define STEPS 100
#endif
#ifndef EXTENT_POWER
#define EXTENT_POWER 0.5
#endif
#ifndef HEIGHT_POWER
#define HEIGHT_POWER 2.0
#endif

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

struct Forest {
  u64* score;   // (V) bits of a double >= 0, which order as integers
  int* parent;  // (V)
  int* size;    // (V) of a root: its voxels
  int* done;    // (V) of a root: heights down to this one are in its score
  int* order;   // (V) voxels, highest bucket first
  int* hooked;  // (V) roots that ceased to be roots at this height
};

__device__ __forceinline__ Forest forest_of(int* words, long long n_voxels) {
  int* parent = words + 2 * n_voxels;
  return Forest{(u64*)words,           parent, parent + n_voxels, parent + 2 * n_voxels,
                parent + 3 * n_voxels, parent + 4 * n_voxels};
}

// After the sweep: dh, 0 where no maximum is positive and finite, NaN where the map holds NaN; and
// how many voxels lie above the lowest height: the first ones of `order`. A root's score is what
// it gained down to `done`; what is left is gain(size, step_sum, done, 0). In units of dh^H.
struct Flooded {
  double dh;
  int n_above;
};

// hang(a, root) is called once for each root that was hooked, by one thread, between barriers; both
// are paid down to this height. The score, size and done of `a` are free from then on.
template <class Hang>
__device__ __forceinline__ Flooded flood(const float* __restrict__ row, float sign, int V,
                                         const int* __restrict__ neighbours,
                                         const double* __restrict__ step_sum, const Forest& forest,
                                         Hang hang) {
  __shared__ float height[STEPS + 1];
  __shared__ int start[STEPS], fill[STEPS];
  __shared__ int n_hooked, nan;
  __shared__ unsigned top;
  u64* score = forest.score;
  int *parent = forest.parent, *size = forest.size, *done = forest.done;
  int *order = forest.order, *hooked = forest.hooked;

  if (threadIdx.x == 0) {
    top = 0;
    nan = 0;
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
  if (any_nan) return Flooded{(double)not_a_number(), 0};
  if (!(peak > 0.0f) || peak > 3.4028235e38f) return Flooded{0.0, 0};

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
      hang(a, root);
    }
    // The barrier after the next height's entries separates this from what it would disturb.
  }
  __syncthreads();
  return Flooded{dh, start[0]};
}
