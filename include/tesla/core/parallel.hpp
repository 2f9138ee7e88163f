// Threads: how many, and a loop over them that decides by itself whether they are worth waking.
//
// Work is always split by output, so the same bits come out at any thread count. The threads are a pool of our own
// rather than OpenMP's: the calling thread never waits for a helper that has not started, so a busy machine costs
// little (an OpenMP team there waits at every loop for its slowest member to be scheduled), and no compiler flag is
// needed.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#ifdef __SSE2__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace tesla::inline TESLA_TARGET {

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

namespace detail {

/// A loop body, type-erased: the code that starts threads exists once.
struct Range {
  void (*call)(const void* body, std::size_t begin, std::size_t end);
  const void* body;
};

inline void pause_briefly() {
#ifdef __SSE2__
  _mm_pause();
#endif
}

/// Helper threads that take pieces of a loop beside the thread that runs it. Each has a share of its own, the same part
/// of every loop, so that what it wrote in one loop is in its cache when the next one reads it; who is done with his
/// own share takes from those of others.
class Pool {
 public:
  static constexpr std::size_t max_threads = 1024;

  static Pool& instance() {
    static Pool pool;
    return pool;
  }

  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    stopping_.store(true);
    signal_.fetch_add(1);
    signal_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
  }

  /// Runs the pieces of [0, count); false if the pool serves another thread or this one is part of it.
  bool run(std::size_t count, std::size_t pieces, std::size_t threads, const Range& range) {
    if (inside() || busy_.exchange(true, std::memory_order_acquire)) return false;
    while (helpers_.size() + 1 < threads) helpers_.emplace_back([this, number = helpers_.size() + 1] { help(number); });
    inside() = true;
    count_ = count, pieces_ = pieces, range_ = range;
    finished_.store(0, std::memory_order_relaxed);
    threads_.store(threads, std::memory_order_relaxed);
    ++generation_;
    for (std::size_t t = 0; t < threads; ++t)
      shares_[t].state.store(generation_ << 32 | (pieces * (t + 1) / threads) << 16 | pieces * t / threads,
                             std::memory_order_release);
    signal_.fetch_add(1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) signal_.notify_all();
    while (take_piece(0)) {
    }
    // Only pieces that a helper has begun are waited for.
    for (int spins = 0; finished_.load(std::memory_order_acquire) != pieces; ++spins) {
      pause_briefly();
      if (spins > 4000) std::this_thread::yield();
    }
    inside() = false;
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  // Generation in the high 32 bits, then the end of the share's pieces and the next one to take in 16 bits each: who
  // changes the word from one piece to the next owns that piece, and the loop cannot end before it is finished.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> state{0};
  };

  bool take_piece(std::size_t self) {
    const std::size_t threads = threads_.load(std::memory_order_relaxed);
    if (self >= threads) return false;
    for (std::size_t t = 0; t < threads; ++t)
      if (take_from(shares_[(self + t) % threads].state)) return true;
    return false;
  }
  bool take_from(std::atomic<std::uint64_t>& share) {
    std::uint64_t state = share.load(std::memory_order_acquire);
    while (true) {
      const std::uint64_t last = state >> 16 & 0xffff, next = state & 0xffff;
      if (next >= last) return false;
      if (!share.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      const FlushSubnormals flush;
      const std::size_t begin = count_ * next / pieces_, end = count_ * (next + 1) / pieces_;
      if (begin < end) range_.call(range_.body, begin, end);
      finished_.fetch_add(1, std::memory_order_acq_rel);
      return true;
    }
  }

  void help(std::size_t self) {
    // Pauses, some 400 us: longer than anything between two loops of one training step, because a helper that has gone
    // to sleep takes 100 us and more to come back.
    constexpr int patience = 32000;
    inside() = true;
    std::uint32_t seen = signal_.load();
    while (!stopping_.load(std::memory_order_relaxed)) {
      while (take_piece(self)) {
      }
      int spins = 0;
      while (signal_.load(std::memory_order_acquire) == seen && spins < patience) pause_briefly(), ++spins;
      if (spins == patience) {
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        signal_.wait(seen, std::memory_order_seq_cst);
        sleeping_.fetch_sub(1, std::memory_order_seq_cst);
      }
      seen = signal_.load(std::memory_order_acquire);
    }
  }

  static bool& inside() {
    static thread_local bool flag = false;
    return flag;
  }

  std::vector<std::thread> helpers_;
  std::atomic<bool> busy_{false}, stopping_{false};
  std::unique_ptr<Share[]> shares_ = std::make_unique<Share[]>(max_threads);
  std::atomic<std::size_t> threads_{0};
  alignas(64) std::atomic<std::size_t> finished_{0};
  alignas(64) std::atomic<std::uint32_t> signal_{0};
  std::atomic<int> sleeping_{0};
  std::uint64_t generation_ = 0;
  std::size_t count_ = 0, pieces_ = 0;
  Range range_{};
};

inline int default_threads() {
  if (const char* wanted = std::getenv("OMP_NUM_THREADS"))
    if (const int n = std::atoi(wanted); n > 0) return n;
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(CPU_COUNT(&allowed), 1);
#endif
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

inline int& chosen_threads() {
  static int count = default_threads();
  return count;
}

[[gnu::noinline]] inline void run_parallel(std::size_t count, double cost, const Range& range) {
  constexpr double worth_a_thread = 700;  // nanoseconds; fork and join take 0.2 us, fetching what others wrote, more
  const double total = static_cast<double>(count) * cost;
  if (total >= 2 * worth_a_thread && count > 1) {
    const auto useful = static_cast<std::size_t>(std::min(total / worth_a_thread, double{Pool::max_threads}));
    const std::size_t threads = std::min({static_cast<std::size_t>(chosen_threads()), count, useful});
    // Long loops are cut finer, so that a thread that is held up does not hold up the others.
    const std::size_t pieces = std::min(count, total > 50 * worth_a_thread ? 2 * threads : threads);
    if (threads > 1 && Pool::instance().run(count, pieces, threads, range)) return;
  }
  const FlushSubnormals flush;
  range.call(range.body, 0, count);
}

}  // namespace detail

/// Sets the number of threads that TESLA uses; 0 goes back to OMP_NUM_THREADS or, without it, the processor's cores.
inline void set_threads(int count) {
  constexpr auto most = static_cast<int>(detail::Pool::max_threads);
  if (count < 0 || count > most)
    raise<UsageError>("set_threads: 1 to ", most, " threads are wanted, or 0 for automatic, not ", count);
  detail::chosen_threads() = count == 0 ? detail::default_threads() : count;
}

/// The number of threads that TESLA uses at most.
inline int threads() { return detail::chosen_threads(); }

/// Calls body(begin, end) on consecutive ranges that cover [0, count), several at a time where that pays. `cost` is
/// about how many nanoseconds one item takes one thread; small totals stay on the calling thread. The body must not
/// throw.
template <class Body>
void parallel_for(std::size_t count, double cost, const Body& body) {
  if (count == 0) return;
  detail::run_parallel(
      count, cost,
      {[](const void* b, std::size_t begin, std::size_t end) { (*static_cast<const Body*>(b))(begin, end); }, &body});
}

}  // namespace tesla::inline TESLA_TARGET
