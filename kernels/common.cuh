// common.cuh — what every kernel shares. Included by the .cu files; does not compile alone.
// defines: thread_id, thread_count     place in the grid, for grid-stride loops
//          reciprocal, inverse_root    1/x and 1/sqrt(x) as the hardware estimates them: within 1
//                                      and 2 units of the last place; of 0 infinity, NaN stays
//          four                        four neighbours of an array that begins on 16 bytes
//          product                     of doubles, rounded by itself: no sum swallows it
//          forget                      makes the compiler read or compute again what it would keep
//                                      in registers because it does not change in a loop
//          now                         a load that another thread of the block may have changed
//          float_bits, float_of, double_bits, double_of, not_a_number
// The host build of the tests defines GPU_SDM_HOST and brings its own estimates and loads.

struct Four {
  float x[4];
};

#ifndef GPU_SDM_HOST
__device__ __forceinline__ Four four(const float* p) {
  const float4 a = __ldg((const float4*)p);
  return Four{{a.x, a.y, a.z, a.w}};
}

__device__ __forceinline__ float reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

__device__ __forceinline__ float inverse_root(float x) {
  float r;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

__device__ __forceinline__ const float* forget(const float* p) {
  asm volatile("" : "+l"(p));
  return p;
}

__device__ __forceinline__ int forget(int n) {
  asm volatile("" : "+r"(n));
  return n;
}

__device__ __forceinline__ double product(double x, double y) { return __dmul_rn(x, y); }
__device__ __forceinline__ int now(const int* p) { return *(const volatile int*)p; }
__device__ __forceinline__ unsigned float_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float float_of(unsigned b) { return __uint_as_float(b); }
__device__ __forceinline__ unsigned long long double_bits(double x) {
  return (unsigned long long)__double_as_longlong(x);
}
__device__ __forceinline__ double double_of(unsigned long long b) {
  return __longlong_as_double((long long)b);
}
#endif

__device__ __forceinline__ long long thread_id() {
  return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ long long thread_count() { return (long long)gridDim.x * blockDim.x; }

__device__ __forceinline__ float not_a_number() { return float_of(0x7fc00000u); }
