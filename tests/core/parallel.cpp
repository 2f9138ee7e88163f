#include <tesla/core/parallel.hpp>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <limits>
#include <thread>
#include <vector>

using namespace tesla;

namespace {

struct Restored {
  ~Restored() { set_threads(0); }
};

}  // namespace

TEST_CASE("parallel_for: every index once, at any number of threads", "[core][parallel]") {
  const Restored restored;
  for (const int threads : {0, 1, 2, 3, 4, 7})
    for (const std::size_t count : {0, 1, 2, 3, 5, 64, 1000})
      for (const double cost : {0.0, 1.0, 1e3, 1e9}) {
        INFO("threads " << threads << " count " << count << " cost " << cost);
        set_threads(threads);
        std::vector<int> visits(count);
        std::atomic<int> empty{0};
        parallel_for(count, cost, [&](std::size_t begin, std::size_t end) {
          if (begin >= end) ++empty;
          for (std::size_t i = begin; i < end; ++i) ++visits[i];
        });
        REQUIRE(empty == 0);
        REQUIRE(std::all_of(visits.begin(), visits.end(), [](int n) { return n == 1; }));
      }
}

TEST_CASE("parallel_for: little work stays in one piece", "[core][parallel]") {
  const Restored restored;
  set_threads(4);
  int calls = 0;
  parallel_for(1000, 1, [&](std::size_t begin, std::size_t end) {
    ++calls;
    CHECK(begin == 0);
    CHECK(end == 1000);
  });
  CHECK(calls == 1);
}

TEST_CASE("parallel_for: much work is shared, and within a piece it is not shared again", "[core][parallel]") {
  const Restored restored;
  set_threads(3);
  std::atomic<int> outer{0}, inner{0};
  parallel_for(300, 1e6, [&](std::size_t, std::size_t) {
    ++outer;
    parallel_for(300, 1e6, [&](std::size_t begin, std::size_t end) { inner += begin == 0 && end == 300 ? 1 : 100; });
  });
  CHECK(outer >= 3);
  CHECK(inner == outer);
}

TEST_CASE("parallel_for: several threads of the caller's at a time", "[core][parallel]") {
  const Restored restored;
  set_threads(4);
  std::atomic<int> wrong{0};
  const auto work = [&] {
    for (int round = 0; round < 200; ++round) {
      std::vector<int> visits(64);
      parallel_for(visits.size(), 1e6, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) ++visits[i];
      });
      for (const int n : visits) wrong += n == 1 ? 0 : 1;
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(work);
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST_CASE("set_threads: a number of threads, or automatic", "[core][parallel]") {
  const Restored restored;
  const int automatic = threads();
  CHECK(automatic >= 1);
  set_threads(3);
  CHECK(threads() == 3);
  set_threads(0);
  CHECK(threads() == automatic);
  CHECK_THROWS_AS(set_threads(-1), UsageError);
  CHECK_THROWS_AS(set_threads(100000), UsageError);
  CHECK_THROWS_WITH(set_threads(-1), Catch::Contains("set_threads") && Catch::Contains("-1"));
  CHECK(threads() == automatic);
}

#ifdef __SSE2__
TEST_CASE("FlushSubnormals: subnormal numbers count as zero while it lives", "[core][parallel]") {
  volatile float tiny = std::numeric_limits<float>::denorm_min();
  const auto product = [&] { return tiny * 4.0F; };
  CHECK(product() > 0);
  {
    const FlushSubnormals flush;
    CHECK(product() == 0);
    { const FlushSubnormals again; }
    CHECK(product() == 0);
  }
  CHECK(product() > 0);
  // Loops run so, on any thread.
  const Restored restored;
  for (const int threads : {1, 4}) {
    set_threads(threads);
    std::atomic<int> kept{0};
    parallel_for(64, 1e6, [&](std::size_t, std::size_t) { kept += product() > 0 ? 1 : 0; });
    CHECK(kept == 0);
  }
  CHECK(product() > 0);
}
#endif
