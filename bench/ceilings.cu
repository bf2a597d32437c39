/* ceilings.cu — what a card does at most: float32 arithmetic, special functions, memory.
   thread  fma_rate, special_rate: CHAINS independent chains of n steps; copy: grid-stride
   output  the last values, so that nothing can be left out
   Put behind the text of kernels/common.cuh by bench/permute_device.py.                     */

#define CHAINS 8

extern "C" __global__ void fma_rate(float* __restrict__ out, float x, int n) {
  float a[CHAINS];
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) a[c] = (float)(threadIdx.x + c);
#pragma unroll 4
  for (int i = 0; i < n; ++i) {
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) a[c] = fmaf(a[c], x, 1.0f);
  }
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) sum += a[c];
  out[thread_id()] = sum;
}

extern "C" __global__ void special_rate(float* __restrict__ out, float x, int n) {
  float a[CHAINS];
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) a[c] = x + (float)(threadIdx.x + c);
#pragma unroll 4
  for (int i = 0; i < n; ++i) {
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) a[c] = reciprocal(a[c]);
  }
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) sum += a[c];
  out[thread_id()] = sum;
}

extern "C" __global__ void copy(const float* __restrict__ in, float* __restrict__ out,
                                long long n) {
  for (long long i = thread_id(); i < n; i += thread_count()) out[i] = in[i];
}
