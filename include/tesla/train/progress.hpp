// What fit() prints: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <tesla/core/parallel.hpp>
#include <tesla/train/history.hpp>

#include <chrono>
#include <cstdio>
#include <string>

#include <unistd.h>

namespace tesla::inline TESLA_TARGET::training {

/// "vectors of 512 bits (avx512), 2 threads", with a hint when the processor has more than the build uses.
[[gnu::cold]] inline std::string machine_line() {
#if defined(__AVX512F__)
  const int bits = 512;
#elif defined(__AVX__)
  const int bits = 256;
#else
  const int bits = 128;
#endif
  std::string line = text("TESLA ", version, ": vectors of ", bits, " bits (", TESLA_STRINGIFY(TESLA_VECTOR_ISA), "), ",
                          threads(), threads() == 1 ? " thread" : " threads");
#if defined(__x86_64__)
  __builtin_cpu_init();
  const int has = __builtin_cpu_supports("avx512f") ? 512 : __builtin_cpu_supports("avx2") ? 256 : 128;
  if (has > bits) line += text("; this processor has ", has, " bits: compile with -O3 -march=native");
#endif
#ifndef __OPTIMIZE__
  line += "; compiled without optimisation: use -O3";
#endif
  return line;
}

[[gnu::cold]] inline std::string duration_text(double seconds) {
  char buffer[32];
  if (seconds < 1)
    std::snprintf(buffer, sizeof buffer, "%.0f ms", seconds * 1e3);
  else if (seconds < 60)
    std::snprintf(buffer, sizeof buffer, "%.1f s", seconds);
  else
    std::snprintf(buffer, sizeof buffer, "%d:%02d min", static_cast<int>(seconds) / 60, static_cast<int>(seconds) % 60);
  return buffer;
}

class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  /// verbose 0: silent; 1: a bar on a terminal, else a line an epoch; 2: a line an epoch.
  Progress(int verbose, std::size_t epochs, std::size_t samples)
      : bar_(verbose == 1 && isatty(STDOUT_FILENO) == 1), lines_(verbose > 0), epochs_(epochs), samples_(samples) {
    if (lines_) {
      std::printf("%s\n", machine_line().c_str());
      std::fflush(stdout);
    }
  }

  void begin_epoch() { start_ = last_ = Clock::now(); }

  /// Whether it is time to draw again; scores are not worth computing otherwise.
  bool due() {
    if (!bar_) return false;
    const auto now = Clock::now();
    if (now - last_ < std::chrono::milliseconds(100)) return false;
    last_ = now;
    return true;
  }

  [[gnu::cold]] void draw(std::size_t epoch, std::size_t done, const Scores& scores) {
    constexpr std::size_t width = 24;
    const std::size_t filled = done * width / samples_;
    const double elapsed = seconds(), rate = static_cast<double>(done) / elapsed;
    std::string line = text("\r\033[Kepoch ", epoch, '/', epochs_, " [");
    for (std::size_t i = 0; i < width; ++i) line += i < filled ? "█" : "·";
    line += text("] ", scores_text(scores), "  ", static_cast<std::size_t>(rate), " samples/s  ",
                 duration_text(static_cast<double>(samples_ - done) / rate), " left");
    std::fputs(line.c_str(), stdout);
    std::fflush(stdout);
  }

  [[gnu::cold]] void end_epoch(std::size_t epoch, std::size_t done, const Scores& scores) {
    if (!lines_) return;
    const double elapsed = seconds();
    std::printf("%sepoch %zu/%zu  %s  %.0f samples/s  %s\n", bar_ ? "\r\033[K" : "", epoch, epochs_,
                scores_text(scores).c_str(), static_cast<double>(done) / elapsed, duration_text(elapsed).c_str());
    std::fflush(stdout);
  }

  void note(const std::string& line) const {
    if (!lines_) return;
    std::printf("%s%s\n", bar_ ? "\r\033[K" : "", line.c_str());
    std::fflush(stdout);
  }

 private:
  double seconds() const { return std::max(std::chrono::duration<double>(Clock::now() - start_).count(), 1e-9); }

  [[gnu::cold]] static std::string scores_text(const Scores& scores) {
    std::string result;
    for (const auto& [name, value] : scores) {
      char buffer[64];
      std::snprintf(buffer, sizeof buffer, "%s%s %.4f", result.empty() ? "" : "  ", name.c_str(), value);
      result += buffer;
    }
    return result;
  }

  bool bar_, lines_;
  std::size_t epochs_, samples_;
  Clock::time_point start_, last_;
};

}  // namespace tesla::inline TESLA_TARGET::training
