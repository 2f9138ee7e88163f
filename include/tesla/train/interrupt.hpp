// Ctrl-C as a request to stop after the batch, only while somebody who asked for that is training.
#pragma once

#include <tesla/core/target.hpp>

#include <csignal>

namespace tesla::inline TESLA_TARGET::training {

class Interrupt {
 public:
  explicit Interrupt(bool wanted) : wanted_(wanted) {
    if (!wanted_) return;
    requested() = 0;
    previous_ = std::signal(SIGINT, [](int) { requested() = 1; });
  }
  ~Interrupt() {
    if (wanted_ && previous_ != SIG_ERR) std::signal(SIGINT, previous_);
  }
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool asked() const { return wanted_ && requested() != 0; }

 private:
  static volatile std::sig_atomic_t& requested() {
    static volatile std::sig_atomic_t flag = 0;
    return flag;
  }
  bool wanted_;
  void (*previous_)(int) = SIG_DFL;
};

}  // namespace tesla::inline TESLA_TARGET::training
