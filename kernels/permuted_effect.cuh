// permuted_effect.cuh — one study's effect and variance under a permutation, in closed form.
// Twin: gpu_sdm/ops/permuted_effects.py. Needs common.cuh and the constants K and RESCALE.
// defines: TABLE, permuted_effect
//
// Everything arrives in the study's own unit, 1 / sqrt(h) with h of gpu_sdm/permute/scaled.py, in
// which neither the effect g nor the difference D needs a factor, whatever the design:
//   D = E + f g,   sd^2 = 1 + g^2 - D^2,   u = D / sd,   y = s u,   var(y) = t u^2 + c.
// TABLE (K, 3) f32 holds s, t, c. Without RESCALE the unit is 1 and sd is not estimated.

#ifndef RESCALE
#define RESCALE 1
#endif

extern "C" {
__constant__ float TABLE[3 * K];
}

// As SMALLEST_VARIANCE of the twin: rounding can push the variance of few subjects below 0.
#define SMALLEST_VARIANCE 1e-6f

// What an effect adds to the variance, the same for all permutations.
__device__ __forceinline__ float spread_of(float g) { return RESCALE ? fmaf(g, g, 1.0f) : 0.0f; }

// y less a shift, and its variance, of study k; spread = spread_of(g).
__device__ __forceinline__ void permuted_effect(int k, float e, float f, float g, float spread,
                                                float shift, float* y, float* variance) {
  const float* row = TABLE + 3 * k;
  const float difference = fmaf(f, g, e);
#if RESCALE
  float subjects = fmaf(-difference, difference, spread);
  subjects = subjects < SMALLEST_VARIANCE ? SMALLEST_VARIANCE : subjects;  // NaN stays
  const float u = difference * inverse_root(subjects);
  *y = fmaf(row[0], u, -shift);
#else
  const float u = difference;
  *y = u - shift;
#endif
  *variance = fmaf(row[1] * u, u, row[2]);
}
