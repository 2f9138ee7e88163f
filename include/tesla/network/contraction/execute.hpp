// Plans put to work: samples times a tensor-train on any backend, and the gradients of that.
#pragma once

#include <tesla/backend/reference/reference.hpp>
#include <tesla/core/memory.hpp>
#include <tesla/network/contraction/breadth_first.hpp>
#include <tesla/network/contraction/merge.hpp>
#include <tesla/network/contraction/planner.hpp>
#include <tesla/network/on_host.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::contraction {

namespace detail {

template <class T, class B>
class MatricesOnHost {
 public:
  MatricesOnHost(B& backend, std::span<const Matrix<T>> matrices) : count_(matrices.size()) {
    for (std::size_t k = 0; k < count_; ++k) {
      const Matrix<T>& m = matrices[k];
      matrices_[k] = m;
      if constexpr (!B::host_memory) {
        copies_.emplace_back(backend, m.data, m.rows * m.stride, true);
        matrices_[k].data = copies_.back().data();
      }
    }
  }
  std::span<const Matrix<T>> matrices() const { return {matrices_.data(), count_}; }
  void send(B& backend) {
    for (auto& copy : copies_) copy.send(backend);
  }

 private:
  std::array<Matrix<T>, backend::max_cores> matrices_;
  std::size_t count_;
  std::vector<OnHost<T, B>> copies_;
};

}  // namespace detail

/// One plan on one backend. It owns nothing: the memory comes from the caller.
template <class T, class B>
class Execution {
 public:
  [[gnu::noinline]] explicit Execution(const Plan& plan)
      : plan_(plan), contraction_(plan.contraction()), training_(plan.job.purpose == Purpose::train) {
    with_kernels([&](const auto& kernels) {
      for (std::size_t g = 0; g < contraction_.steps; ++g)
        steps_[g] = {kernels.matrix_size(g), kernels.gradient_size(g), kernels.matrix_layout(g),
                     kernels.gradient_layout(g), kernels.padded(g)};
      kernels_ = {kernels.kept_size(), kernels.scratch_size(training_)};
    });
    const Merger<T> merger(plan_.job.shape, {}, nullptr);
    for (std::size_t g = 0; g < contraction_.steps; ++g) {
      const ContractionStep& s = contraction_.step[g];
      const std::size_t need =
          training_ ? merger.unmerge_scratch(s.first, s.last) : merger.merge_scratch(s.first, s.last);
      merging_ = std::max(merging_, rounded(need));
    }
  }

  MemoryNeed memory() const {
    MemoryNeed need = {cache_line / sizeof(T) + (training_ ? kernels_.kept : 0), kernels_.scratch + merging_};
    for (std::size_t g = 0; g < contraction_.steps; ++g) {
      need.kept += rounded(steps_[g].matrix_size);
      if (training_) need.scratch += rounded(steps_[g].gradient_size);
    }
    return need;
  }

  /// Whether forward() can apply an elementwise function.
  bool applies() const { return contraction_.depth_first; }

  /// y = f(W x + bias); the bias may be null. A plan for training leaves in `kept` what backward() takes. The merged
  /// cores stay there, and are not made again under the same stamps.
  [[gnu::noinline]] void forward(B& backend, std::span<const Matrix<T>> cores, Panels<const T> x, Panels<T> y,
                                 const T* bias, backend::InPlace<T> f, std::span<T> kept, std::span<T> scratch,
                                 const Stamps& stamps = {}) const {
    T* const head = take(kept, cache_line / sizeof(T));
    const Matrices matrices = place(kept, &Step::matrix_size);
    T* const room = take(scratch, merging_);
    if (!made_before<B>(head, stamps)) merge(backend, cores, matrices, room);
    with_kernels([&](const auto& kernels) {
      kernels.forward(backend, constant(matrices), x, y, bias, f, training_ ? kept.data() : nullptr, scratch);
    });
  }

  /// The gradients of the cores and, unless it is null, dx, from dy, the gradient of W x.
  [[gnu::noinline]] void backward(B& backend, std::span<const Matrix<T>> cores, std::span<const Matrix<T>> gradients,
                                  Panels<const T> x, Panels<const T> dy, Panels<T> dx, std::span<T> kept,
                                  std::span<T> scratch) const {
    take(kept, cache_line / sizeof(T));
    const Matrices matrices = place(kept, &Step::matrix_size);
    T* const room = take(scratch, merging_);
    const Matrices sums = place(scratch, &Step::gradient_size);
    with_kernels([&](const auto& kernels) {
      kernels.backward(backend, constant(matrices), std::span<T* const>(sums.data(), contraction_.steps), x, dy, dx,
                       kept.data(), scratch);
    });
    detail::MatricesOnHost<T, B> host(backend, cores), to(backend, gradients);
    OnHost<T, B> host_room(backend, room, merging_, false);
    const Merger<T> merger(plan_.job.shape, host.matrices(), &on_host);
    for (std::size_t g = 0; g < contraction_.steps; ++g) {
      OnHost<T, B> sum(backend, sums[g], steps_[g].gradient_size, true);
      merger.unmerge(contraction_.step[g].first, contraction_.step[g].last, steps_[g].gradient, sum.data(),
                     to.matrices(), host_room.data());
    }
    to.send(backend);
  }

 private:
  using Matrices = std::array<T*, backend::max_cores>;
  /// What the kernels say of a step.
  struct Step {
    std::size_t matrix_size = 0, gradient_size = 0;
    CoreLayout matrix, gradient;
    bool padded = false;
  };

  /// Calls f with the kernels that the plan asks for.
  template <class F>
  void with_kernels(const F& f) const {
    if constexpr (requires { typename B::template DepthFirst<T>; })
      if (contraction_.depth_first)
        return f(typename B::template DepthFirst<T>(contraction_, plan_.job.batch, plan_.job.lanes));
    f(BreadthFirst<T, B>(contraction_, plan_.job.batch, plan_.job.lanes));
  }

  /// A product of host memory.
  static void on_host(const Product<T>& p) {
    if constexpr (B::host_memory)
      B().multiply(p);
    else
      backend::Reference().multiply(p);
  }
  static std::size_t rounded(std::size_t n) { return round_up(n, cache_line / sizeof(T)); }
  static T* take(std::span<T>& from, std::size_t n) {
    T* const at = from.data();
    from = from.subspan(rounded(n));
    return at;
  }
  Matrices place(std::span<T>& memory, std::size_t Step::*size) const {
    Matrices matrices{};
    for (std::size_t g = 0; g < contraction_.steps; ++g) matrices[g] = take(memory, steps_[g].*size);
    return matrices;
  }
  void merge(B& backend, std::span<const Matrix<T>> cores, const Matrices& matrices, T* room) const {
    detail::MatricesOnHost<T, B> host(backend, cores);
    OnHost<T, B> host_room(backend, room, merging_, false);
    const Merger<T> merger(plan_.job.shape, host.matrices(), &on_host);
    for (std::size_t g = 0; g < contraction_.steps; ++g) {
      const Step& step = steps_[g];
      if (step.padded) backend.fill(matrices[g], step.matrix_size, T(0));
      OnHost<T, B> matrix(backend, matrices[g], step.matrix_size, true);
      merger.merge(contraction_.step[g].first, contraction_.step[g].last, step.matrix, matrix.data(), host_room.data());
      matrix.send(backend);
    }
  }
  std::span<const T* const> constant(const Matrices& matrices) const { return {matrices.data(), contraction_.steps}; }

  const Plan& plan_;
  const Contraction& contraction_;
  bool training_;
  std::array<Step, backend::max_cores> steps_;
  MemoryNeed kernels_;
  std::size_t merging_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::network::contraction
