// permuted_effect.cuh — one study's effect and weight under a permutation, in closed form.
// Twin: gpu_sdm/ops/permuted_effects.py. Needs common.cuh and the constant K.
// defines: TABLE, COLUMNS, permuted_effect
//
// TABLE (K, 7) f32, filled by gpu_sdm/permute/device.py::device_table. The small-sample correction
// J is folded in, so that neither the effect g nor the difference needs a multiplication by it:
//   diff = a m1 + b g,  sd^2 = 1 + alpha g^2 + m1 (beta m1 + gamma g),  m1 = E + f g,
//   y = diff / sd,      1/w = c + v2 y^2.
// f arrives divided by J.

#define COLUMNS 7  // a, b, alpha, beta, gamma, c, v2

extern "C" {
__constant__ float TABLE[K * COLUMNS];
}

// As SMALLEST_VARIANCE of the twin: rounding can push the variance of few subjects below 0.
#define SMALLEST_VARIANCE 1e-6f

__device__ __forceinline__ void permuted_effect(int k, float e, float f, float g, float shift,
                                                float* y, float* w) {
  const float* row = TABLE + k * COLUMNS;
  const float m1 = fmaf(f, g, e);
  const float diff = fmaf(row[0], m1, row[1] * g);
  float variance = fmaf(m1, fmaf(row[3], m1, row[4] * g), fmaf(row[2] * g, g, 1.0f));
  variance = variance < SMALLEST_VARIANCE ? SMALLEST_VARIANCE : variance;  // NaN stays
  *y = fmaf(diff, inverse_root(variance), -shift);
  *w = variance * reciprocal(fmaf(row[6] * diff, diff, row[5] * variance));
}
