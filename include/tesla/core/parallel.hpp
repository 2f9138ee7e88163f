// Threads: how many, and a loop over them that decides by itself whether they are worth waking.
//
// Work is always split by output, so the same bits come out at any thread count.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <cstddef>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

namespace tesla::inline TESLA_TARGET {

namespace detail {
inline int chosen_threads = 0;  // 0: as many as OpenMP says
}

/// Sets the number of threads that TESLA uses; 0 goes back to OpenMP's own choice (OMP_NUM_THREADS).
inline void set_threads(int count) {
  if (count < 0) raise<UsageError>("set_threads: a number of threads of 0 (automatic) or more is wanted, not ", count);
  detail::chosen_threads = count;
}

/// The number of threads that TESLA uses at most.
inline int threads() {
#ifdef _OPENMP
  if (omp_in_parallel()) return 1;
  return detail::chosen_threads > 0 ? detail::chosen_threads : omp_get_max_threads();
#else
  return 1;
#endif
}

/// While it lives, subnormal numbers of this thread count as zero, in and out: momentum and probabilities that fade
/// away would otherwise cost a hundred cycles an operation. The caller's setting comes back at the end.
class FlushSubnormals {
 public:
#ifdef __SSE2__
  FlushSubnormals() : saved_(_mm_getcsr()) {
    if ((saved_ & flags) != flags) _mm_setcsr(saved_ | flags);
  }
  ~FlushSubnormals() {
    if ((saved_ & flags) != flags) _mm_setcsr(saved_);
  }
#else
  FlushSubnormals() {}
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#ifdef __SSE2__
  static constexpr unsigned flags = 0x8040;  // flush to zero, denormals are zero
  unsigned saved_;
#endif
};

/// Calls body(begin, end) on consecutive ranges that cover [0, count), one range a thread. `cost` is what one item
/// costs in multiply-adds or bytes moved; small totals stay on the calling thread. The body must not throw.
template <class Body>
void parallel_for(std::size_t count, double cost, const Body& body) {
  if (count == 0) return;
#ifdef _OPENMP
  constexpr double worth_a_thread = 60e3;  // about 2 us of multiply-adds: twice what fork and join cost
  const double total = static_cast<double>(count) * cost;
  if (total >= 2 * worth_a_thread && count > 1) {
    const auto useful = static_cast<std::size_t>(std::min(total / worth_a_thread, 1024.0));
    const std::size_t wanted = std::min({static_cast<std::size_t>(threads()), count, useful});
    if (wanted > 1) {
#pragma omp parallel num_threads(static_cast <int>(wanted))
      {
        const FlushSubnormals flush;
        const auto n = static_cast<std::size_t>(omp_get_num_threads());
        const auto i = static_cast<std::size_t>(omp_get_thread_num());
        const std::size_t begin = count * i / n, end = count * (i + 1) / n;
        if (begin < end) body(begin, end);
      }
      return;
    }
  }
#else
  static_cast<void>(cost);
#endif
  const FlushSubnormals flush;
  body(std::size_t{0}, count);
}

}  // namespace tesla::inline TESLA_TARGET
