// Callbacks that follow one score: they stop training, keep the best model in a file, or lower the learning rate.
#pragma once

#include <tesla/train/callback.hpp>
#include <tesla/train/snapshot.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tesla::inline TESLA_TARGET::callback {

/// Which scores are good ones; automatic: high ones where the name says so, as that of an accuracy does, else low ones.
enum class Mode { automatic, lowest, highest };

namespace detail {

/// Whether a score of this name is better when it is higher.
[[gnu::cold]] inline bool better_high(std::string_view name) {
  for (const std::string_view part : {"error", "loss", "entropy"})
    if (name.find(part) != name.npos) return false;
  for (const std::string_view part : {"acc", "auc", "precision", "recall", "f1", "top", "r2", "iou", "score", "dice"})
    if (name.find(part) != name.npos) return true;
  return false;
}

/// Compares one score with the best so far.
class Watch {
 public:
  Watch(const char* who, std::string monitor, Mode mode, double min_delta)
      : who_(who), monitor_(std::move(monitor)), mode_(mode), min_delta_(min_delta) {
    if (!(min_delta >= 0 && min_delta <= 1e300))
      raise<UsageError>(who, ": .min_delta has to be finite and 0 or more, not ", min_delta);
  }

  /// The score of an epoch: by default the loss of the validation, where there is one, or of training.
  [[gnu::cold]] double value(const Scores& scores) const {
    const std::string_view name = name_in(scores);
    if (!scores.contains(name)) {
      std::string known;
      for (const auto& score : scores) known += (known.empty() ? "" : ", ") + score.first;
      raise<UsageError>(who_, ": there is no score \"", name, "\" to follow, only ", known,
                        name.starts_with("val_") ? "; those of a validation need fit's .validation" : "");
    }
    return scores[name];
  }
  /// Whether the score is better than the best one by more than min_delta. A NaN never is.
  [[gnu::cold]] bool improves(const Scores& scores, double best) const {
    const double now = value(scores);
    if (std::isnan(best)) return !std::isnan(now);
    return high(scores) ? now > best + min_delta_ : now < best - min_delta_;
  }
  std::string name(const Scores& scores) const { return std::string(name_in(scores)); }

 private:
  std::string_view name_in(const Scores& scores) const {
    return !monitor_.empty() ? std::string_view(monitor_) : scores.contains("val_loss") ? "val_loss" : "loss";
  }
  bool high(const Scores& scores) const {
    return mode_ == Mode::automatic ? better_high(name_in(scores)) : mode_ == Mode::highest;
  }

  const char* who_;
  std::string monitor_;
  Mode mode_;
  double min_delta_;
};

inline constexpr double no_score = std::numeric_limits<double>::quiet_NaN();

/// What a callback that follows a score knows. Copies share it: fit() is given a copy.
struct Watched {
  double best = no_score;
  std::size_t best_epoch = 0;  // of all training
  std::size_t waited = 0;      // epochs since
  std::size_t stopped_epoch = 0;
  std::uint64_t structure = 0;  // of the parameters, when last seen
};

}  // namespace detail

struct EarlyStoppingOptions {
  std::string monitor = {};  // the score; by default val_loss, or loss without a validation
  std::size_t patience = 0;  // so many epochs without an improvement end training; 0: as 1
  double min_delta = 0;      // what is no more than this is no improvement
  Mode mode = Mode::automatic;
  bool restore_best = true;    // the parameters of the best epoch come back at the end
  std::size_t start_from = 0;  // epochs of a fit before anything counts
};

/// Ends training when a score has not improved for some epochs. Another fit of the model with the same object goes on
/// with the best score so far, and waits anew.
struct EarlyStopping : EarlyStoppingOptions {
  EarlyStopping(EarlyStoppingOptions options = {})
      : EarlyStoppingOptions(options), watch_("EarlyStopping", options.monitor, options.mode, options.min_delta) {}

  template <class Model>
  void on_fit_begin(Moment<Model>& m) {
    if (state_->structure != m.model.network().structure()) *state_ = {};
    state_->waited = state_->stopped_epoch = 0;
  }
  template <class Model>
  void on_epoch_end(Moment<Model>& m) {
    state_->structure = m.model.network().structure();
    if (m.epoch <= start_from) return;
    if (watch_.improves(m.scores, state_->best)) {
      state_->best = watch_.value(m.scores);
      state_->best_epoch = m.model.training().epochs;
      state_->waited = 0;
      if (restore_best) state_->parameters.take(m.model.network());
    } else if (++state_->waited >= patience) {
      state_->stopped_epoch = m.model.training().epochs;
      m.stop = true;
    }
  }
  template <class Model>
  void on_fit_end(Moment<Model>& m) {
    if (!restore_best || state_->parameters.empty()) return;
    if (state_->waited > 0 && !state_->parameters.put(m.model.network()))
      m.warn("EarlyStopping: the parameters have had other shapes since the best epoch; the last ones stay");
  }

  /// The best score so far, NaN before any, and the epoch it is of, counted over all training.
  double best() const { return state_->best; }
  std::size_t best_epoch() const { return state_->best_epoch; }
  /// The epoch, of all training, after which the last fit was stopped; 0 if it was not.
  std::size_t stopped_epoch() const { return state_->stopped_epoch; }

 private:
  struct State : detail::Watched {
    training::Snapshot parameters;
  };
  detail::Watch watch_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

struct CheckpointOptions {
  std::string path = {};     // of the file; {epoch} in it becomes the number of the epoch, of all training
  std::string monitor = {};  // the score; by default val_loss, or loss without a validation
  bool best_only = true;     // or each epoch
  double min_delta = 0;
  Mode mode = Mode::automatic;
};

/// Saves the model at the end of epochs: when a score is the best so far, or always. A file that cannot be written is a
/// warning, and the next epoch that is better than the file is tried.
struct Checkpoint : CheckpointOptions {
  Checkpoint(CheckpointOptions options = {.path = "checkpoint.safetensors"})
      : CheckpointOptions(options), watch_("Checkpoint", options.monitor, options.mode, options.min_delta) {
    if (path.empty()) raise<UsageError>("Checkpoint: needs .path, the file to write");
  }

  template <class Model>
  [[gnu::cold]] void on_epoch_end(Moment<Model>& m) {
    if (best_only && !watch_.improves(m.scores, state_->best)) return;
    std::string file = path;
    for (std::size_t at; (at = file.find("{epoch}")) != file.npos;)
      file.replace(at, 7, std::to_string(m.model.training().epochs));
    try {
      m.model.save(file);
    } catch (const FileError& e) {
      state_->failures.push_back(text("Checkpoint: epoch ", m.model.training().epochs, ": ", e.what()));
      return m.warn(state_->failures.back());
    }
    state_->saved = std::move(file);
    if (best_only) state_->best = watch_.value(m.scores);
  }

  /// The file that was written last, or nothing; the score it has; and what went wrong.
  const std::string& saved() const { return state_->saved; }
  double best() const { return state_->best; }
  const std::vector<std::string>& failures() const { return state_->failures; }

 private:
  struct State {
    double best = detail::no_score;
    std::string saved;
    std::vector<std::string> failures;
  };
  detail::Watch watch_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

struct ReduceOnPlateauOptions {
  std::string monitor = {};   // the score; by default val_loss, or loss without a validation
  double factor = 0.1;        // of the learning rate
  std::size_t patience = 10;  // so many epochs without an improvement lower the rate; 0: as 1
  double min_delta = 1e-4;    // what is no more than this is no improvement
  std::size_t cooldown = 0;   // epochs after a reduction that do not count
  double min_rate = 0;        // the rate is never made smaller than this
  Mode mode = Mode::automatic;
};

/// Lowers the learning rate when a score has not improved for some epochs. The model keeps the factor, in its file too.
struct ReduceOnPlateau : ReduceOnPlateauOptions {
  ReduceOnPlateau(ReduceOnPlateauOptions options = {})
      : ReduceOnPlateauOptions(options), watch_("ReduceOnPlateau", options.monitor, options.mode, options.min_delta) {
    if (!(factor > 0 && factor < 1)) raise<UsageError>("ReduceOnPlateau: .factor has to lie in (0, 1), not ", factor);
    if (!(min_rate >= 0 && min_rate <= 1e6))
      raise<UsageError>("ReduceOnPlateau: .min_rate has to lie in [0, 1e6], not ", min_rate);
  }

  template <class Model>
  [[gnu::cold]] void on_fit_begin(Moment<Model>& m) {
    if (!m.model.training().optimizer->facts().has_rate)
      raise<UsageError>("ReduceOnPlateau: the optimizer ", m.model.training().optimizer->facts().kind,
                        " has no .learning_rate");
    if (state_->structure != m.model.network().structure()) *state_ = {};
  }
  template <class Model>
  [[gnu::cold]] void on_epoch_end(Moment<Model>& m) {
    state_->structure = m.model.network().structure();
    if (state_->cooling > 0) --state_->cooling, state_->waited = 0;
    if (watch_.improves(m.scores, state_->best)) {
      state_->best = watch_.value(m.scores);
      state_->waited = 0;
      return;
    }
    if (state_->cooling > 0 || ++state_->waited < patience) return;
    state_->cooling = cooldown, state_->waited = 0;
    const double rate = m.model.learning_rate(), next = std::max(rate * factor, min_rate);
    if (!(next < rate)) return;
    m.model.scale_learning_rate(next / rate);
    state_->epochs.push_back(m.model.training().epochs);
  }

  /// The epochs, of all training, at whose end the rate was lowered.
  const std::vector<std::size_t>& reductions() const { return state_->epochs; }

 private:
  struct State : detail::Watched {
    std::size_t cooling = 0;
    std::vector<std::size_t> epochs;
  };
  detail::Watch watch_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace tesla::inline TESLA_TARGET::callback
