// Callbacks: objects that fit() tells what it has done.
#pragma once

#include <tesla/train/history.hpp>

#include <cstddef>
#include <memory>
#include <utility>

namespace tesla::inline TESLA_TARGET::train {

/// Where training stands when a callback is called.
template <class Model>
struct Moment {
  Model& model;
  std::size_t epoch, epochs;   // from 1; the number asked for
  std::size_t batch, batches;  // of the epoch, from 1
  const Scores& scores;        // of the epoch so far; at its end with those of the validation, named val_...
  bool stop = false;           // set it to end training after this batch or epoch
};

// clang-format off
/// Any object with one or more of these members, each called with a Moment<Model>&.
template <class C, class Model>
concept Callback = std::copyable<C> && (
    requires(C c, Moment<Model>& m) { c.on_fit_begin(m); } || requires(C c, Moment<Model>& m) { c.on_epoch_begin(m); } ||
    requires(C c, Moment<Model>& m) { c.on_batch_end(m); } || requires(C c, Moment<Model>& m) { c.on_epoch_end(m); } ||
    requires(C c, Moment<Model>& m) { c.on_fit_end(m); });
// clang-format on

/// Any callback, for the list in the options of fit().
template <class Model>
class AnyCallback {
 public:
  enum class Event { fit_begin, epoch_begin, batch_end, epoch_end, fit_end };

  template <class C>
  requires(!std::same_as<std::remove_cvref_t<C>, AnyCallback> && Callback<C, Model>) AnyCallback(C callback)
      : node_(std::make_shared<NodeOf<C>>(std::move(callback))) {}

  void operator()(Event event, Moment<Model>& moment) const { node_->call(event, moment); }

 private:
  struct Node {
    virtual ~Node() = default;
    virtual void call(Event event, Moment<Model>& moment) = 0;
  };
  template <class C>
  struct NodeOf final : Node {
    explicit NodeOf(C c) : callback(std::move(c)) {}
    void call(Event event, Moment<Model>& m) override {
      if constexpr (requires { callback.on_fit_begin(m); })
        if (event == Event::fit_begin) callback.on_fit_begin(m);
      if constexpr (requires { callback.on_epoch_begin(m); })
        if (event == Event::epoch_begin) callback.on_epoch_begin(m);
      if constexpr (requires { callback.on_batch_end(m); })
        if (event == Event::batch_end) callback.on_batch_end(m);
      if constexpr (requires { callback.on_epoch_end(m); })
        if (event == Event::epoch_end) callback.on_epoch_end(m);
      if constexpr (requires { callback.on_fit_end(m); })
        if (event == Event::fit_end) callback.on_fit_end(m);
    }
    C callback;
  };
  std::shared_ptr<Node> node_;
};

}  // namespace tesla::inline TESLA_TARGET::train
