// A model at work on sequences that grow: one step at a time, each read with what attention keeps of those before.
#pragma once

#include <tesla/model/network.hpp>
#include <tesla/train/check.hpp>

#include <span>
#include <string_view>

namespace tesla::inline TESLA_TARGET {

namespace training {

/// Raises an error where outputs, one row a sample from `first` on, are not finite.
template <class T>
[[gnu::cold]] void refuse_overflow(std::string_view who, std::span<const T> rows, std::size_t features,
                                   std::size_t first) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (!is_finite(rows[i]))
      raise<DataError>(who, ": output ", i % features, " of sample ", first + i / features, " is ", rows[i],
                       "; the parameters or the data are beyond what the layers can compute with");
}

/// Runs samples `first` to before first + count of an array, and puts their outputs into `out`, one row a sample.
template <class T, class B>
void predict_batch(model::Network<T, B>& network, const ArrayView& x, std::size_t first, std::size_t count,
                   std::span<T> out, std::string_view who) {
  model::Workspace<T>& w = network.workspace(count, false, 0);
  network.backend().gather(backend::Rows{&x, nullptr, first, count}, w.input(), backend::Matrix<T>());
  network.forward(w);
  const Panels<const T> y = w.output(network.entries().size() - 1);
  network.backend().scatter(y, out.data());
  if (!is_finite(network.squared_norm(y))) refuse_overflow<T>(who, out, out.size() / count, first);
}

}  // namespace training

/// What predict() gives for whole sequences, step by step. It reads the model's parameters where they are, as they are
/// at each call; a model that is built anew needs another one.
template <class T, class B>
class Decoder {
 public:
  [[gnu::cold]] Decoder(const model::Network<T, B>& network, std::size_t sequences)
      : network_(network.by_step()), sequences_(sequences), length_(network.input_shape()[0]) {}

  /// The next step of each sequence, {sequences, ...}: the outputs of that step, one row a sequence.
  Tensor<T> decode(const ArrayView& x) {
    Tensor<T> result(network_.output_shape().tail().with_front(sequences_));
    decode_into(x, std::span<T>(result.data(), result.size()));
    return result;
  }
  /// The same into memory that is already there; after the first one it allocates nothing.
  void decode_into(const ArrayView& x, std::span<T> out) {
    if (place_ == length_)
      raise<UsageError>("decode: the sequence has its ", length_, " steps; call restart() for another one");
    if (x.samples() != sequences_)
      raise<ShapeError>("decode: x is of shape ", x.shape(), ", but this is for ", sequences_,
                        " sequences, one row each");
    if (out.size() != sequences_ * network_.output_shape().elements())
      raise<ShapeError>("decode: ", sequences_, " sequences with ", network_.output_shape().elements(),
                        " outputs a step need ", sequences_ * network_.output_shape().elements(),
                        " values of memory, not ", out.size());
    training::check_input(x, network_.input_shape(), "decode: x");
    training::check_finite<T>(x, "decode: x");
    network_.check_samples(x, "decode: x");
    network_.go_to(place_);
    const FlushSubnormals flush;
    training::predict_batch(network_, x, 0, sequences_, out, "decode");
    ++place_;
  }

  /// Begins new sequences.
  void restart() { place_ = 0; }
  /// How many steps there are so far, and can be.
  std::size_t place() const { return place_; }
  std::size_t length() const { return length_; }

 private:
  model::Network<T, B> network_;
  std::size_t sequences_, length_, place_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET
