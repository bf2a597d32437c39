// bounds_terms.cuh — what one study adds to minus the log-likelihood of its bounds, in double.
// Twins: gpu_sdm/ops/fit_bounds.py::_terms and ::_profile. Needs common.cuh and normal_tail.cuh.
// defines: Bounds     the arrays every kernel of the likelihood reads
//          Study, load    one study at one voxel, read anew at each use: reading 8 bytes is
//                         nothing beside two exponentials, and K studies fit in no register
//          Terms, study_terms         value, slope and curvature in the mean; infinite behind the
//                                     wall, where the probability between the limits is negative
//          Profile, profile_terms     value and slope in tau2
//          fitted                     a study's mean under the design
// All is inlined but what is far out, which is rare: inlined too it would cost registers, and as
// calls the rest would keep its state in local memory.
// knobs:   Q     coefficients, 1 to 8
//          MEAN  1: the design is a column of ones and is not read

#ifndef Q
#define Q 1
#endif
#ifndef MEAN
#define MEAN 1
#endif

#define KNOWN_WIDTH 1e-5  // gpu_sdm/data.py
#define FAR 1e10          // an infinite limit, in standard deviations

struct Bounds {
  const float *lower, *upper;  // (K, V)
  const double *c, *v2;        // (K): the variance of an effect g is c + v2 g^2
  const double* design;        // (K, Q)
  int n_studies;
  long long n_voxels, v;
};

struct Study {
  double low, high, v_low, v_high;  // limits and the sampling variance at each
  double y, v;                      // of a known study
  bool known;
};

struct Terms {
  double f, g, h;
  double weight;  // 1e-3 over the variance: the least curvature where the Hessian is not positive
};

struct Profile {
  double f, g;
};

__device__ __forceinline__ Study load(const Bounds& d, int k) {
  const long long at = k * d.n_voxels + d.v;
  const double low = d.lower[at], high = d.upper[at], c = __ldg(d.c + k), v2 = __ldg(d.v2 + k);
  Study s;
  s.known = high - low < KNOWN_WIDTH;
  s.y = s.known ? 0.5 * (low + high) : 0.0;
  s.v = c + v2 * s.y * s.y;
  const bool no_low = low == -INFINITE, no_high = high == INFINITE;
  s.low = no_low ? -FAR : low;
  s.high = no_high ? FAR : high;
  s.v_low = no_low ? 1.0 : c + v2 * low * low;
  s.v_high = no_high ? 1.0 : c + v2 * high * high;
  return s;
}

__device__ __forceinline__ double fitted(const Bounds& d, int k, const double* beta) {
  if (MEAN) return beta[0];
  double mu = 0.0;
#pragma unroll
  for (int p = 0; p < Q; ++p) mu = fma(__ldg(d.design + k * Q + p), beta[p], mu);
  return mu;
}

struct Interval {
  double ea, eb, p;  // exp(-a^2/2), exp(-b^2/2), Phi(a) - Phi(b)
  bool safe;         // whether p is to be used; else logs
};

__device__ __forceinline__ Interval interval(double a, double b) {
  const Tail up = tail(fmin(fabs(a) * ROOT_HALF, FARTHEST));
  const Tail down = tail(fmin(fabs(b) * ROOT_HALF, FARTHEST));
  // Differences are taken in the tail that both lie in.
  const double p = b > 0.0   ? down.erfc - up.erfc
                   : a > 0.0 ? 2.0 - up.erfc - down.erfc
                             : up.erfc - down.erfc;
  return {up.e, down.e, 0.5 * p, a > b && b < LAST_SAFE && a > -LAST_SAFE && p > 0.0};
}

__device__ __noinline__ Terms far_terms(double a, double b, double up, double low) {
  const double log_p = log_interval(b, a);
  if (log_p == -INFINITE) return {INFINITE, 0.0, 0.0, 0.0};
  const double pa = exp(-0.5 * a * a - LOG_ROOT_2PI - log_p) * up;
  const double pb = exp(-0.5 * b * b - LOG_ROOT_2PI - log_p) * low;
  const double slope = pa - pb;
  return {-log_p, slope, a * pa * up - b * pb * low + slope * slope, 0.0};
}

__device__ __forceinline__ Terms study_terms(double mu, const Study& s) {
  if (s.known) {
    const double inverse = 1.0 / s.v, e = mu - s.y;
    return {0.5 * e * e * inverse, e * inverse, inverse, 1e-3 * inverse};
  }
  const double up = rsqrt(s.v_high), low = rsqrt(s.v_low);
  const double a = (s.high - mu) * up, b = (s.low - mu) * low;
  const Interval i = interval(a, b);
  Terms t;
  if (i.safe) {
    const double scale = ROOT_2PI_INVERSE / i.p, pa = i.ea * scale * up, pb = i.eb * scale * low;
    t.f = -log_of(i.p);
    t.g = pa - pb;
    t.h = a * pa * up - b * pb * low + t.g * t.g;
  } else {
    t = far_terms(a, b, up, low);
  }
  t.weight = 1e-3 * up * up;
  return t;
}

__device__ __noinline__ Profile far_profile(double a, double b, double up, double low) {
  const double log_p = log_interval(b, a), safe = log_p == -INFINITE ? 0.0 : log_p;
  const double pa = exp(-0.5 * a * a - LOG_ROOT_2PI - safe);
  const double pb = exp(-0.5 * b * b - LOG_ROOT_2PI - safe);
  return {-log_p, 0.5 * (a * pa * up * up - b * pb * low * low)};
}

__device__ __forceinline__ Profile profile_terms(double t, double mu, const Study& s) {
  if (s.known) {
    const double v = s.v + t, inverse = 1.0 / v, square = (s.y - mu) * (s.y - mu) * inverse;
    return {0.5 * (log_of(v) + square), 0.5 * (1.0 - square) * inverse};
  }
  const double up = rsqrt(s.v_high + t), low = rsqrt(s.v_low + t);
  const double a = (s.high - mu) * up, b = (s.low - mu) * low;
  const Interval i = interval(a, b);
  if (!i.safe) return far_profile(a, b, up, low);
  return {-log_of(i.p),
          0.5 * ROOT_2PI_INVERSE / i.p * (a * i.ea * up * up - b * i.eb * low * low)};
}
