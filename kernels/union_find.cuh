// union_find.cuh — clusters of voxels as trees that the threads of a block join without locks.
// Needs common.cuh.
// defines: find_root, join
//
// A root is hooked under a smaller index by compare-and-swap: each root is hooked exactly once and
// by one thread, and links always lead to smaller indices. Which voxel ends as the root of a
// cluster, its smallest, does not depend on the order of the threads.

// Root of v; shortens the path. Only links of voxels that are no root any more are rewritten, and
// links always lead to smaller indices, so a stale read costs a step and never an error.
__device__ __forceinline__ int find_root(int* parent, int v) {
  int p = now(parent + v);
  while (p != v) {
    const int next = now(parent + p);
    if (next != p) *(volatile int*)(parent + v) = next;
    v = p;
    p = next;
  }
  return v;
}

// Joins the clusters of a and b; gives the root that this call has hooked, -1 where there was none.
__device__ __forceinline__ int join(int* parent, int a, int b) {
  a = find_root(parent, a);
  b = find_root(parent, b);
  while (a != b) {
    if (a < b) {
      const int swap = a;
      a = b;
      b = swap;
    }
    const int old = atomicCAS(parent + a, a, b);
    if (old == a) return a;
    a = find_root(parent, old);  // another thread hooked it first: go on from there
    b = find_root(parent, b);
  }
  return -1;
}
