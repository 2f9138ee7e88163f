// Lambdas as callbacks: callback::on_epoch_end([](auto& moment) { ... })
#pragma once

#include <tesla/train/callback.hpp>

#include <utility>

namespace tesla::inline TESLA_TARGET::callback {

namespace detail {

template <class F>
struct OnFitBegin {
  F function;
  void on_fit_begin(auto& moment) { function(moment); }
};
template <class F>
struct OnEpochBegin {
  F function;
  void on_epoch_begin(auto& moment) { function(moment); }
};
template <class F>
struct OnBatchEnd {
  F function;
  void on_batch_end(auto& moment) { function(moment); }
};
template <class F>
struct OnEpochEnd {
  F function;
  void on_epoch_end(auto& moment) { function(moment); }
};
template <class F>
struct OnFitEnd {
  F function;
  void on_fit_end(auto& moment) { function(moment); }
};
template <class F>
struct OnError {
  F function;
  void on_error(auto& moment) { function(moment); }
};

}  // namespace detail

/// Each calls a function with a Moment, which says where training stands, at one kind of event.
template <class F>
detail::OnFitBegin<F> on_fit_begin(F function) {
  return {std::move(function)};
}
template <class F>
detail::OnEpochBegin<F> on_epoch_begin(F function) {
  return {std::move(function)};
}
template <class F>
detail::OnBatchEnd<F> on_batch_end(F function) {
  return {std::move(function)};
}
template <class F>
detail::OnEpochEnd<F> on_epoch_end(F function) {
  return {std::move(function)};
}
template <class F>
detail::OnFitEnd<F> on_fit_end(F function) {
  return {std::move(function)};
}
/// Where training ends by an exception; `moment.handled = true` makes fit end as if it had been stopped.
template <class F>
detail::OnError<F> on_error(F function) {
  return {std::move(function)};
}

}  // namespace tesla::inline TESLA_TARGET::callback
