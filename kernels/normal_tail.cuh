// normal_tail.cuh — exponentials, logs and normal tails in double. Needs common.cuh.
// Twins: gpu_sdm/ops/_normal_tail_cpu.py (the same polynomials) and, far out,
// gpu_sdm/ops/bounded_normal.py. No branches and no library near the centre: one exponential
// serves the density and the tail, and the host build runs the very operations of the device.
// defines: FARTHEST, LAST_SAFE, exp_below_0, tail, log_of   to 3e-15 relative
//          log_interval                                     any interval, by logs: rare, slow

#define FARTHEST 26.0   // erfc is 5e-296 there: still a normal number, and nothing beside 1
#define LAST_SAFE 28.0  // standard deviations: an interval farther out is left to logs
#define ROOT_HALF 0.7071067811865476
#define LOG_ROOT_2PI 0.9189385332046727
#define ROOT_2PI_INVERSE 0.3989422804014327
#define INFINITE (double_of(0x7ff0000000000000ull))

struct Tail {
  double e, erfc;  // exp(-x^2) and erfc(x)
};

// Horner's rule, highest power first.
template <int N>
__device__ __forceinline__ double polynomial(const double (&p)[N], double x) {
  double sum = p[0];
#pragma unroll
  for (int i = 1; i < N; ++i) sum = fma(sum, x, p[i]);
  return sum;
}

// Exp of x in [-700, 0]: Taylor's series around the nearest multiple of ln 2.
__device__ __forceinline__ double exp_below_0(double x) {
  const double shifted = fma(x, 1.4426950408889634, 6755399441055744.0);  // integer: the low bits
  const double n = shifted - 6755399441055744.0;
  const double r = fma(n, -1.90821492927058770002e-10, fma(n, -0.693147180369123816490, x));
  constexpr double P[] = {
      1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0,
      1.0 / 40320.0,      1.0 / 5040.0,      1.0 / 720.0,      1.0 / 120.0,     1.0 / 24.0,
      1.0 / 6.0,          0.5,               1.0,              1.0};
  return double_of(double_bits(polynomial(P, r)) + (double_bits(shifted) << 52));
}

// exp(x^2) erfc(x) (1 + 2 x) as a polynomial of u = (x - 3) / (x + 3), x in [0, FARTHEST].
__device__ __forceinline__ Tail tail(double x) {
  constexpr double P[] = {
      -4.1207916744876265e-09, -8.281143724349937e-09,  3.278022966956047e-08,
      9.11759475217281e-08,    -1.312027036731067e-07,  -6.040877912613498e-07,
      3.493410385927882e-07,   3.463315980240028e-06,   -7.279360825513857e-07,
      -2.00963221548489e-05,   4.948329599047046e-06,   0.0001250980638891889,
      -0.00010515954588835108, -0.0007798320223294887,  0.0018886903220791517,
      0.0025293917865945857,   -0.023770514915268666,   0.0683080273459045,
      -0.119273663415475,      0.1296451587027027,      -0.047562294353447436,
      -0.13562110612458067,    1.2530080582697296};
  // One division serves both quotients.
  const double a = x + 3.0, b = fma(2.0, x, 1.0), inverse = 1.0 / (a * b);
  const double e = exp_below_0(-x * x);
  const double p = polynomial(P, (x - 3.0) * (b * inverse));
  return {e, e * p * (a * inverse)};
}

// Log of a positive normal number: the exponent, and the series of 2 artanh for the rest.
__device__ __forceinline__ double log_of(double x) {
  const long long bits = (long long)double_bits(x);
  const long long n = (bits - 4604544271217802189ll) >> 52;  // bits of sqrt(1/2)
  const double f = double_of((unsigned long long)bits - ((unsigned long long)n << 52)) - 1.0;
  const double s = f / (2.0 + f), q = s * s;
  constexpr double P[] = {1.0 / 23.0, 1.0 / 21.0, 1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0,
                          1.0 / 11.0, 1.0 / 9.0,  1.0 / 7.0,  1.0 / 5.0,  1.0 / 3.0};
  const double k = (double)n;
  const double rest = fma(2.0 * s * q, polynomial(P, q), k * 1.90821492927058770002e-10);
  return fma(k, 0.693147180369123816490, fma(2.0, s, rest));
}

// Log of Phi(x).
__device__ __noinline__ double log_phi(double x) {
  if (x > 0.0) return log1p(-0.5 * erfc(x * ROOT_HALF));
  if (x > -37.0) return log(0.5 * erfc(-x * ROOT_HALF));
  const double s = 1.0 / (x * x);
  const double series = -s * (1.0 - s * (3.0 - s * (15.0 - s * (105.0 - s * 945.0))));
  return -0.5 * x * x - log(-x) - LOG_ROOT_2PI + log1p(series);
}

// Log of Phi(hi) - Phi(lo); minus infinity where hi <= lo.
__device__ __noinline__ double log_interval(double lo, double hi) {
  if (hi <= lo) return -INFINITE;
  if (lo > 0.0) {
    const double swap = -lo;
    lo = -hi;
    hi = swap;
  }
  if (hi > -LAST_SAFE) {  // nothing underflows here: one log instead of two
    const double p = 0.5 * (erfc(-hi * ROOT_HALF) - erfc(-lo * ROOT_HALF));
    if (!(p <= 0.0)) return log(p);
  }
  const double top = log_phi(hi), low = log_phi(lo);
  return low < top ? top + log(-expm1(low - top)) : -INFINITE;
}
