// bounds_newton.cuh — damped Newton search for the coefficients of one voxel, float64.
// Twins: gpu_sdm/ops/fit_bounds.py::_newton and ::_direction. Needs bounds_terms.cuh.
// defines: Sums           value, gradient and Hessian over the kept studies but one
//          bit, set_bit   of one study, in words (W, V) of 32
//          total          fills Sums; add_terms takes one study's out again
//          direction      a Newton step; where the Hessian is not positive, from its raised parts
//          newton         the search, its line search stopped by every wall

#define STEP_TOL 1e-9
#define MAX_STEPS 100
#define MAX_HALVINGS 40
#define TRI (Q * (Q + 1) / 2)

struct Sums {
  double f, g[Q], h[TRI];  // value, gradient and lower triangle of the Hessian
};

__device__ __forceinline__ bool bit(const unsigned* words, const Bounds& d, int k) {
  return words[(k >> 5) * d.n_voxels + d.v] >> (k & 31) & 1u;
}

__device__ __forceinline__ void set_bit(unsigned* words, const Bounds& d, int k, bool value) {
  unsigned* word = words + (k >> 5) * d.n_voxels + d.v;
  *word = value ? *word | 1u << (k & 31) : *word & ~(1u << (k & 31));
}

__device__ __forceinline__ double design(const Bounds& d, int k, int p) {
  return MEAN ? 1.0 : __ldg(d.design + k * Q + p);
}

__device__ __forceinline__ void add_outer(double* a, const Bounds& d, int k, double factor) {
#pragma unroll
  for (int i = 0; i < Q; ++i)
#pragma unroll
    for (int j = 0; j <= i; ++j)
      a[i * (i + 1) / 2 + j] += factor * design(d, k, i) * design(d, k, j);
}

__device__ __forceinline__ void add_terms(Sums* s, const Bounds& d, int k, const Terms& t,
                                          double sign) {
  s->f += sign * t.f;
#pragma unroll
  for (int p = 0; p < Q; ++p) s->g[p] += sign * t.g * design(d, k, p);
  add_outer(s->h, d, k, sign * t.h);
}

// Sums over the kept studies but `skip`; `least` of the weights, `terms` (2, K, V) g and h of each.
__device__ __forceinline__ void total(const Bounds& d, const double* beta, const unsigned* keep,
                                      int skip, Sums* sums, double* least, double* terms) {
  Sums s = {};
  double w[TRI] = {};
#pragma unroll 1
  for (int k = 0; k < d.n_studies; ++k) {
    if (k == skip || !bit(keep, d, k)) continue;
    const Terms t = study_terms(fitted(d, k, beta), load(d, k));
    add_terms(&s, d, k, t, 1.0);
    if (least) add_outer(w, d, k, t.weight);
    if (terms) {
      terms[k * d.n_voxels + d.v] = t.g;
      terms[(d.n_studies + k) * d.n_voxels + d.v] = t.h;
    }
  }
  *sums = s;
  if (least)
    for (int i = 0; i < TRI; ++i) least[i] = w[i];
}

// Hessian with the curvature of each study raised to its least.
__device__ __forceinline__ void raised(const Bounds& d, const double* beta, const unsigned* keep,
                                    int skip, double* out) {
  double h[TRI] = {};
#pragma unroll 1
  for (int k = 0; k < d.n_studies; ++k) {
    if (k == skip || !bit(keep, d, k)) continue;
    const Terms t = study_terms(fitted(d, k, beta), load(d, k));
    add_outer(h, d, k, fmax(t.h, t.weight));
  }
  for (int i = 0; i < TRI; ++i) out[i] = h[i];
}

// Factors L D L' of a symmetric matrix, in place; whether it is positive definite.
__device__ __forceinline__ bool factor(double* a) {
#pragma unroll
  for (int i = 0; i < Q; ++i)
#pragma unroll
    for (int j = 0; j <= i; ++j) {
      double s = a[i * (i + 1) / 2 + j];
#pragma unroll
      for (int k = 0; k < j; ++k)
        s -= a[i * (i + 1) / 2 + k] * a[j * (j + 1) / 2 + k] * a[k * (k + 1) / 2 + k];
      if (i > j)
        s /= a[j * (j + 1) / 2 + j];
      else if (!(s > 0.0))
        return false;
      a[i * (i + 1) / 2 + j] = s;
    }
  return true;
}

__device__ __forceinline__ void solve(const double* a, double* b) {
#pragma unroll
  for (int i = 0; i < Q; ++i)
#pragma unroll
    for (int k = 0; k < i; ++k) b[i] -= a[i * (i + 1) / 2 + k] * b[k];
#pragma unroll
  for (int i = 0; i < Q; ++i) b[i] /= a[i * (i + 1) / 2 + i];
#pragma unroll
  for (int i = Q - 1; i >= 0; --i)
#pragma unroll
    for (int k = i + 1; k < Q; ++k) b[i] -= a[k * (k + 1) / 2 + i] * b[k];
}

// Newton step in `step`; where the Hessian is not positive, from its raised parts.
__device__ __forceinline__ void direction(const Bounds& d, const double* beta,
                                          const unsigned* keep, int skip, const Sums& s,
                                          const double* least, double* step, int* passes) {
  double a[TRI];
#pragma unroll
  for (int i = 0; i < TRI; ++i) a[i] = s.h[i] - 1e-4 * least[i];
  if (factor(a)) {
#pragma unroll
    for (int i = 0; i < TRI; ++i) a[i] = s.h[i];
  } else {
    raised(d, beta, keep, skip, a);
    ++*passes;
  }
#pragma unroll
  for (int p = 0; p < Q; ++p) {
    a[p * (p + 1) / 2 + p] += 1e-12;  // a voxel without any study left
    step[p] = s.g[p];
  }
  factor(a);
  solve(a, step);
}

// Damped Newton from `beta`, in place, whose sums there are known; whether it converged.
__device__ __forceinline__ bool newton(const Bounds& d, double* beta, const unsigned* keep,
                                       int skip, Sums s, const double* least, int* passes) {
#pragma unroll 1
  for (int round = 0; round < MAX_STEPS; ++round) {
    double step[Q], trial[Q], size = 1.0;
    direction(d, beta, keep, skip, s, least, step, passes);
    Sums there;
    bool moved = false;
#pragma unroll 1
    for (int half = 0; half < MAX_HALVINGS && !moved; ++half) {
#pragma unroll
      for (int p = 0; p < Q; ++p) trial[p] = beta[p] - size * step[p];
      total(d, trial, keep, skip, &there, nullptr, nullptr);
      ++*passes;
      moved = there.f <= s.f + 1e-12 * (1.0 + fabs(s.f));
      size *= 0.5;
    }
    double longest = 0.0, largest = 0.0;
#pragma unroll
    for (int p = 0; p < Q; ++p) longest = fmax(longest, fabs(step[p]));
    if (!moved) return longest <= 1e-6;
#pragma unroll
    for (int p = 0; p < Q; ++p) {
      beta[p] = trial[p];
      largest = fmax(largest, fabs(trial[p]));
    }
    s = there;
    if (longest <= STEP_TOL * (1.0 + largest)) return true;
  }
  return false;
}
