/* permutation_weights.cu — which subjects each permutation exchanges: the draws of
   gpu_sdm/permute/plan.py::PermutationPlan to the bit, so that nothing per permutation comes from
   the host.
   thread  permutation_weights: one (study's subject, permutation); permutation_share: one (study,
           permutation); grid-stride, any block; counts by integer atomics
   inputs  study    (N) i32 the study of each subject;  offset (K+1) i64 first subject of each
           n1, n2   (K) i32;  keys (K, 2) u32, of the stage "flip" or "label" as the study needs
           residual (K) f32, slope, offset (K) f64: of gpu_sdm/permute/scaled.py
   outputs weights  P * N f32, study after study, each (P, N_k): residual times the permuted mean of
                    the residuals is weights @ residuals
           count    (K, P) i32, cleared by the caller: sum of signs, or true patients labelled
           share    (P, ROW) f32: slope f + offset, and 0 from K on
   edge    permutation 0 is the identity; equal tickets keep the order of the subjects         */

#include "common.cuh"
#include "philox.cuh"

__device__ __forceinline__ unsigned long long ticket_of(unsigned permutation, int subject,
                                                        unsigned k0, unsigned k1) {
  const Words x = philox(permutation, subject / 2, 0, 0, k0, k1);
  const int first = subject % 2 * 2;
  return (unsigned long long)x.w[first] << 32 | x.w[first + 1];
}

extern "C" __global__ void permutation_weights(
    const int* __restrict__ study, const long long* __restrict__ offset,
    const int* __restrict__ n1, const int* __restrict__ n2, const unsigned* __restrict__ keys,
    const float* __restrict__ residual, float* __restrict__ weights, int* __restrict__ count,
    long long start, long long n_permutations, long long n_subjects) {
  for (long long i = thread_id(); i < n_subjects * n_permutations; i += thread_count()) {
    const long long subject = i / n_permutations, p = i % n_permutations;
    const int k = study[subject], patients = n1[k], n = patients + n2[k];
    const int mine = (int)(subject - offset[k]);
    const unsigned number = (unsigned)(start + p), k0 = keys[2 * k], k1 = keys[2 * k + 1];
    int value;
    if (n2[k] == 0) {
      const Words x = philox(number, mine / 128, 0, 0, k0, k1);
      value = number == 0 ? 1 : 1 - 2 * (int)(x.w[mine / 32 % 4] >> mine % 32 & 1u);
    } else if (number == 0) {
      value = mine < patients;
    } else {
      // Labelled a patient is who draws one of the n1 smallest tickets.
      const unsigned long long ticket = ticket_of(number, mine, k0, k1);
      int before = 0;
      for (int other = 0; other < n; other += 2) {
        const Words x = philox(number, other / 2, 0, 0, k0, k1);
        for (int h = 0; h < 2 && other + h < n; ++h) {
          const unsigned long long drawn = (unsigned long long)x.w[2 * h] << 32 | x.w[2 * h + 1];
          before += drawn < ticket || (drawn == ticket && other + h < mine);
        }
      }
      value = before < patients;
    }
    const float unit = (float)(1.0 / patients);
    weights[offset[k] * n_permutations + p * n + mine] = (float)value * unit * residual[k];
    if (mine < patients) atomicAdd(count + k * n_permutations + p, value);
  }
}

extern "C" __global__ void permutation_share(
    const int* __restrict__ count, const int* __restrict__ n1, const double* __restrict__ slope,
    const double* __restrict__ offset, float* __restrict__ share, long long n_permutations,
    long long n_studies, long long row) {
  for (long long i = thread_id(); i < row * n_permutations; i += thread_count()) {
    const long long k = i / n_permutations, p = i % n_permutations;
    const float f = k < n_studies ? (float)((double)count[i] / n1[k]) : 0.0f;
    share[p * row + k] = k < n_studies ? (float)(product((double)f, slope[k]) + offset[k]) : 0.0f;
  }
}
