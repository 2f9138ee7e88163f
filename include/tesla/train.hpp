// train and evaluate as functions, for programs that hold the optimizer and the loss themselves.
#pragma once

#include <tesla/sequential.hpp>

namespace tesla::inline TESLA_TARGET {

/// Trains a model as its fit does. An optimizer that was made for the model's parameters goes on from call to call, any
/// other begins anew. Metrics are those that the model was compiled with, if it was.
template <class Model, optim::Optimizer O, loss::Loss L>
History train(Model& model, const data::Samples& samples, const O& optimizer, const L& loss,
              const typename Model::Options& options = {}) {
  model.train_with(loss, optimizer);
  return model.fit(samples, options);
}
template <class Model, optim::Optimizer O, loss::Loss L>
History train(Model& model, const ArrayView& x, const ArrayView& y, const O& optimizer, const L& loss,
              const typename Model::Options& options = {}) {
  return tesla::train(model, data::Samples(x, y), optimizer, loss, options);
}

/// The mean of a loss over samples.
template <class Model, loss::Loss L>
double evaluate(Model& model, const data::Samples& samples, const L& loss, const EvaluateOptions& options = {}) {
  return model.evaluate(samples, loss, options)["loss"];
}
template <class Model, loss::Loss L>
double evaluate(Model& model, const ArrayView& x, const ArrayView& y, const L& loss,
                const EvaluateOptions& options = {}) {
  return tesla::evaluate(model, data::Samples(x, y), loss, options);
}

}  // namespace tesla::inline TESLA_TARGET
