// A search for a learning rate (Smith 2017): it rises from batch to batch, and the loss tells where it is good.
#pragma once

#include <tesla/train/callback.hpp>
#include <tesla/train/snapshot.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <vector>

namespace tesla::inline TESLA_TARGET::callback {

struct LearningRateFinderOptions {
  double from = 1e-7, to = 10;
  std::size_t steps = 100;  // of the optimizer, from one rate to the other
  double smoothing = 0.9;   // how much of the running mean of losses a batch keeps
  double diverges_at = 4;   // a loss so many times the least one ends the search
};

/// Raises the learning rate by the same factor after each step and writes down the loss, then ends the fit and leaves
/// the model as it was. A fit that is over before all steps are made is a warning.
struct LearningRateFinder : LearningRateFinderOptions {
  struct Point {
    double rate, loss;  // smoothed
  };

  LearningRateFinder(LearningRateFinderOptions options = {}) : LearningRateFinderOptions(options) {
    if (!(from > 0 && from < to && to <= 1e6))
      raise<UsageError>("LearningRateFinder: .from and .to have to rise, above 0 and up to 1e6, not from ", from,
                        " to ", to);
    if (steps < 2) raise<UsageError>("LearningRateFinder: .steps has to be 2 or more, not ", steps);
    if (!(smoothing >= 0 && smoothing < 1))
      raise<UsageError>("LearningRateFinder: .smoothing has to lie in [0, 1), not ", smoothing);
    if (!(diverges_at > 1)) raise<UsageError>("LearningRateFinder: .diverges_at has to be above 1, not ", diverges_at);
  }

  template <class Model>
  [[gnu::cold]] void on_fit_begin(Moment<Model>& m) {
    auto& training = m.model.training();
    if (!training.optimizer->facts().has_rate)
      raise<UsageError>("LearningRateFinder: the optimizer ", training.optimizer->facts().kind,
                        " has no .learning_rate");
    *state_ = {};
    state_->saved.take(m.model.network(), true);
    state_->step = training.step, state_->epochs = training.epochs, state_->averaged = training.averaged_steps;
    state_->searching = true;
    training.rate = from;
  }
  template <class Model>
  void on_batch_end(Moment<Model>& m) {
    if (!state_->searching) return;
    state_->sum += m.loss, ++state_->batches;
    if (!m.stepped) return;
    if (state_->add(*m.model.training().rate, *this)) m.stop = state_->done = true;
    m.model.training().rate =
        from * std::pow(to / from, static_cast<double>(state_->points.size()) / static_cast<double>(steps - 1));
  }
  template <class Model>
  void on_fit_end(Moment<Model>& m) {
    if (!restore(m) || state_->done) return;
    const std::size_t made = state_->points.size();
    m.warn(text("LearningRateFinder: the fit was over after ", made, " of ", steps, " steps",
                made == 0 ? std::string() : text(", at a rate of ", state_->points.back().rate, " of up to ", to),
                ", so suggestion() means little; give fit more .epochs, or the search fewer .steps"));
  }
  /// A loss or a gradient beyond all numbers is the end of the search, not of the program.
  template <class Model>
  void on_error(Moment<Model>& m) {
    if (!restore(m) || state_->points.empty()) return;
    try {
      throw;
    } catch (const DataError&) {
      m.handled = true;
    } catch (...) {
    }
  }

  /// The rates that were tried with the smoothed loss of each.
  const std::vector<Point>& points() const { return state_->points; }
  /// The rate at which the loss fell fastest, over the logarithm of the rate: one to begin with.
  [[gnu::cold]] double suggestion() const { return steepest(state_->points); }

 private:
  struct State {
    training::Snapshot saved;
    std::size_t step = 0, epochs = 0, averaged = 0;
    bool searching = false, done = false;  // done: it has ended by itself
    double sum = 0;                        // of the losses of one step
    std::size_t batches = 0;
    double mean = 0, weight = 0, least = 0;
    std::vector<Point> points;

    /// One step's loss; true if it was the last one.
    [[gnu::cold]] bool add(double rate, const LearningRateFinderOptions& o) {
      mean = o.smoothing * mean + (1 - o.smoothing) * sum / static_cast<double>(batches);
      weight = o.smoothing * weight + (1 - o.smoothing);
      sum = 0, batches = 0;
      points.push_back({rate, mean / weight});
      if (points.size() == 1 || points.back().loss < least) least = points.back().loss;
      return points.size() == o.steps || points.back().loss > o.diverges_at * least;
    }
  };

  template <class Model>
  [[gnu::cold]] bool restore(Moment<Model>& m) {
    if (!state_->searching) return false;
    state_->searching = false;
    auto& training = m.model.training();
    training.rate.reset();
    training.step = state_->step, training.epochs = state_->epochs, training.averaged_steps = state_->averaged;
    const bool done = state_->saved.put(m.model.network());
    state_->saved = {};
    if (!done) m.warn("LearningRateFinder: another callback has changed the model's shapes; it is not as it was");
    return true;
  }

  [[gnu::cold]] static double steepest(const std::vector<Point>& points) {
    // The loss at the end has begun to rise, and the slope at a point is that between its neighbours.
    double best = 0, rate = 0;
    const auto least =
        std::min_element(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.loss < b.loss; });
    const auto end = static_cast<std::size_t>(least - points.begin());
    for (std::size_t i = 1; i + 1 < points.size() && i <= end; ++i) {
      const double slope =
          (points[i + 1].loss - points[i - 1].loss) / std::log(points[i + 1].rate / points[i - 1].rate);
      if (slope < best) best = slope, rate = points[i].rate;
    }
    if (rate == 0)
      raise<UsageError>("LearningRateFinder: the loss has fallen at none of ", points.size(),
                        " rates; give it more steps, or a smaller .from");
    return rate;
  }

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace tesla::inline TESLA_TARGET::callback
