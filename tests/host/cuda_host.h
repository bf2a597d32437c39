// cuda_host.h — enough of CUDA C++ for g++ to build the kernels as they are and run them in ctypes.
//
// Threads of a block are fibers on one system thread: each runs until a barrier, then the next.
// Atomics and now() also hand over, at pseudo-random moments (schedule_seed), so that threads
// interleave inside a pass as they may on a device. A barrier that not all threads of the block
// reach ends the program. Shared memory is static: a block finds what the block before it left.
#pragma once
#define GPU_SDM_HOST 1

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static

struct Place {
  unsigned x = 0, y = 0, z = 0;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

namespace host {

enum State { READY, WAITING, ENDED };
struct Fiber {
  ucontext_t context;
  State state;
};
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static ucontext_t scheduler;
static unsigned current;
static bool in_fiber = false;
static unsigned long long random_state = 1;
static void (*body)();

inline unsigned random_bits() {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(random_state >> 33);
}

inline void leave(State state) {
  const unsigned thread = current;
  fibers[thread].state = state;
  swapcontext(&fibers[thread].context, &scheduler);
}

inline void perhaps_yield(unsigned one_in) {
  if (in_fiber && fibers.size() > 1 && random_bits() % one_in == 0) leave(READY);
}

static void fiber_main() {
  body();
  leave(ENDED);
}

static void run_block(unsigned threads) {
  const size_t stack = 128 << 10;
  fibers.resize(threads);
  stacks.resize(stack * threads);
  for (unsigned t = 0; t < threads; ++t) {
    getcontext(&fibers[t].context);
    fibers[t].context.uc_stack.ss_sp = stacks.data() + stack * t;
    fibers[t].context.uc_stack.ss_size = stack;
    fibers[t].context.uc_link = nullptr;
    fibers[t].state = READY;
    makecontext(&fibers[t].context, fiber_main, 0);
  }
  in_fiber = true;
  for (;;) {
    bool moved = false;
    const unsigned first = random_bits() % threads;
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned t = (first + i) % threads;
      if (fibers[t].state != READY) continue;
      current = threadIdx.x = t;
      swapcontext(&scheduler, &fibers[t].context);
      moved = true;
    }
    if (moved) continue;
    unsigned waiting = 0;
    for (const Fiber& f : fibers) waiting += f.state == WAITING;
    if (waiting == 0) break;
    if (waiting != threads) {
      std::fprintf(stderr, "barrier reached by %u of %u threads\n", waiting, threads);
      std::abort();
    }
    for (Fiber& f : fibers) f.state = READY;
  }
  in_fiber = false;
}

template <class... A, size_t... I>
void launch(void (*kernel)(A...), long long grid, long long block, void** args,
            std::index_sequence<I...>) {
  static std::tuple<std::decay_t<A>...> values;
  static void (*entry)(A...);
  values = std::make_tuple(*static_cast<std::decay_t<A>*>(args[I])...);
  entry = kernel;
  gridDim.x = (unsigned)grid;
  blockDim.x = (unsigned)block;
  for (unsigned b = 0; b < gridDim.x; ++b) {
    blockIdx.x = b;
#ifdef HOST_BARRIERS
    body = [] { entry(std::get<I>(values)...); };
    run_block(blockDim.x);
#else
    for (unsigned t = 0; t < blockDim.x; ++t) {
      threadIdx.x = t;
      entry(std::get<I>(values)...);
    }
#endif
  }
}

template <class... A>
void launch(void (*kernel)(A...), long long grid, long long block, void** args) {
  launch(kernel, grid, block, args, std::index_sequence_for<A...>{});
}

}  // namespace host

extern "C" void schedule_seed(unsigned long long seed) { host::random_state = seed | 1; }

inline void __syncthreads() {
#ifndef HOST_BARRIERS
  std::fprintf(stderr, "this build has no barriers\n");
  std::abort();
#else
  host::leave(host::WAITING);
#endif
}

template <class T>
inline T atomicAdd(T* p, T x) {
  host::perhaps_yield(4);
  const T old = *p;
  *p = old + x;
  return old;
}
template <class T>
inline T atomicMax(T* p, T x) {
  host::perhaps_yield(4);
  const T old = *p;
  if (x > old) *p = x;
  return old;
}
template <class T>
inline T atomicOr(T* p, T x) {
  host::perhaps_yield(4);
  const T old = *p;
  *p = old | x;
  return old;
}
template <class T>
inline T atomicExch(T* p, T x) {
  host::perhaps_yield(4);
  const T old = *p;
  *p = x;
  return old;
}
template <class T>
inline T atomicCAS(T* p, T expected, T x) {
  host::perhaps_yield(2);
  const T old = *p;
  if (old == expected) *p = x;
  return old;
}
inline int now(const int* p) {
  host::perhaps_yield(16);
  return *(const volatile int*)p;
}

// As the device: a read of four floats that does not begin on 16 bytes is an error.
#define four(p) host_four<Four>(p)
template <class T>
inline T host_four(const float* p) {
  if ((size_t)p % 16) {
    std::fprintf(stderr, "a read of 16 bytes does not begin on 16 bytes\n");
    std::abort();
  }
  return T{{p[0], p[1], p[2], p[3]}};
}
inline double product(double x, double y) { return x * y; }
inline const float* forget(const float* p) { return p; }
inline float __ldg(const float* p) { return *p; }
inline double __ldg(const double* p) { return *p; }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline int forget(int n) { return n; }

inline unsigned float_bits(float x) {
  unsigned b;
  std::memcpy(&b, &x, 4);
  return b;
}
inline float float_of(unsigned b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}
inline unsigned long long double_bits(double x) {
  unsigned long long b;
  std::memcpy(&b, &x, 8);
  return b;
}
inline double double_of(unsigned long long b) {
  double x;
  std::memcpy(&x, &b, 8);
  return x;
}

// As wrong as the hardware may be: 1 ulp for rcp.approx, 2 for rsqrt.approx, either way.
inline float host_miss(float exact, int ulps) {
  if (!(std::fabs(exact) < 1e30f) || exact == 0.0f) return exact;
  const unsigned b = float_bits(exact);
  return float_of(b & 4u ? b + ulps : b - ulps);
}
inline float reciprocal(float x) { return host_miss(1.0f / x, 1); }
inline float inverse_root(float x) { return host_miss(1.0f / std::sqrt(x), 2); }
