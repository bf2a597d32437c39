// random_effects.cuh — DerSimonian-Laird pooling of one imputation and Rubin's rules over them.
// Twin: gpu_sdm/ops/permuted_z.py. Needs common.cuh.
// defines: Sums (of one imputation over the studies), Rubin (of one permutation over imputations)
//
// Q = S2 - S1^2/S0 cancels in float32, so effects arrive less a shift near their mean; Q does not
// change. permuted_z.cu takes the fixed-effect mean of a permutation's first imputation.

struct Sums {
  float w, wy, wyy, ww;

  __device__ __forceinline__ void clear() { w = wy = wyy = ww = 0.0f; }

  __device__ __forceinline__ void add(float y, float weight) {
    const float product = weight * y;
    w += weight;
    wy += product;
    wyy = fmaf(product, y, wyy);
    ww = fmaf(weight, weight, ww);
  }

  __device__ __forceinline__ float tau2(int n_studies) const {
    const float inverse = reciprocal(w);
    const float q = fmaf(-wy * inverse, wy, wyy);
    const float t = (q - (float)(n_studies - 1)) * reciprocal(fmaf(-ww, inverse, w));
    return t < 0.0f ? 0.0f : t;  // NaN stays
  }
};

struct Rubin {
  float shift, estimate, squares, variance;

  __device__ __forceinline__ void start(float first) {
    shift = first;
    estimate = squares = variance = 0.0f;
  }

  // Estimate less the shift, and its variance, of one imputation.
  __device__ __forceinline__ void add(float b, float v) {
    estimate += b;
    squares = fmaf(b, b, squares);
    variance += v;
  }

  __device__ __forceinline__ float z(int n_imputations) const {
    const float per = 1.0f / (float)n_imputations, mean = estimate * per;
    float total = variance * per;
    if (n_imputations > 1) {
      const float between = squares - mean * estimate;
      total += (1.0f + per) * between / (float)(n_imputations - 1);
    }
    return (shift + mean) / sqrtf(total);
  }
};
