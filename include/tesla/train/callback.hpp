// Callbacks: objects that fit() tells what it has done.
#pragma once

#include <tesla/train/history.hpp>

#include <concepts>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::callback {

/// Where training stands when a callback is called.
template <class Model>
struct Moment {
  Model& model;
  std::size_t epoch, epochs;   // from 1; the number asked for
  std::size_t batch, batches;  // of the epoch, from 1
  const Scores& scores;        // of the epoch so far; at its end with those of the validation, named val_...
  bool stop = false;           // set it to end training after this batch or epoch
  double loss = 0;             // of the batch alone
  bool stepped = false;        // whether the optimizer made a step after the batch; see .accumulate
  bool handled = false;        // set it in on_error, and fit ends as if it had been stopped
  std::vector<std::string>* warnings = nullptr;

  /// Says something on stderr, and in the history of this fit.
  [[gnu::cold]] void warn(const std::string& message) {
    std::fprintf(stderr, "warning: %s\n", message.c_str());
    if (warnings != nullptr) warnings->push_back(message);
  }
};

// clang-format off
/// Any object with one or more of these members, each called with a Moment<Model>&. on_error comes instead of on_fit_end
/// where training ends by an exception, before that goes on to the caller.
template <class C, class Model>
concept Callback = std::copy_constructible<C> && (
    requires(C c, Moment<Model>& m) { c.on_fit_begin(m); } || requires(C c, Moment<Model>& m) { c.on_epoch_begin(m); } ||
    requires(C c, Moment<Model>& m) { c.on_batch_end(m); } || requires(C c, Moment<Model>& m) { c.on_epoch_end(m); } ||
    requires(C c, Moment<Model>& m) { c.on_fit_end(m); } || requires(C c, Moment<Model>& m) { c.on_error(m); });
// clang-format on

/// Any callback, for the list in the options of fit().
template <class Model>
class AnyCallback {
 public:
  enum class Event { fit_begin, epoch_begin, batch_end, epoch_end, fit_end, error };

  template <class C>
  requires(!std::same_as<std::remove_cvref_t<C>, AnyCallback> && Callback<C, Model>) AnyCallback(C callback)
      : node_(std::make_shared<NodeOf<C>>(std::move(callback))) {}

  void operator()(Event event, Moment<Model>& moment) const { node_->call(event, moment); }
  /// Whether it is told of batches; without any, scores need not be computed then.
  bool watches_batches() const { return node_->watches_batches; }

 private:
  struct Node {
    bool watches_batches;
    explicit Node(bool watches) : watches_batches(watches) {}
    virtual ~Node() = default;
    virtual void call(Event event, Moment<Model>& moment) = 0;
  };
  template <class C>
  struct NodeOf final : Node {
    explicit NodeOf(C c) : Node(requires(Moment<Model> & m) { c.on_batch_end(m); }), callback(std::move(c)) {}
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
      if constexpr (requires { callback.on_error(m); })
        if (event == Event::error) callback.on_error(m);
    }
    C callback;
  };
  std::shared_ptr<Node> node_;
};

/// Training has ended by an exception: what happens while callbacks are told so does not take its place.
template <class Model>
[[gnu::cold]] void tell_error(const std::vector<AnyCallback<Model>>& callbacks, Moment<Model>& moment) {
  for (const auto& callback : callbacks) {
    try {
      callback(AnyCallback<Model>::Event::error, moment);
    } catch (const std::exception& e) {
      moment.warn(text("a callback failed in on_error: ", e.what()));
    } catch (...) {
      moment.warn("a callback failed in on_error");
    }
  }
}

}  // namespace tesla::inline TESLA_TARGET::callback
