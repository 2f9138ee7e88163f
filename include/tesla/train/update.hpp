// From the gradients of a batch to new parameters: checks, clipping, the optimizer's rule, sums over several batches,
// and running averages of the parameters.
#pragma once

#include <tesla/model/training.hpp>
#include <tesla/train/check.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::training {

/// The part that a batch has in a step of the optimizer.
struct Share {
  double of_step = 1;  // its samples over those of all batches of the step
  bool first = true, last = true;
};

/// The batches whose gradients one step sums: `most` of them, fewer at the end of an epoch.
struct Grouping {
  std::size_t samples, batch_size, most;

  Share operator()(std::size_t batch) const {
    const std::size_t begin = batch / most * most, first = begin * batch_size;
    const std::size_t in_step = std::min(most * batch_size, samples - first);
    const std::size_t own = std::min(batch_size, samples - batch * batch_size);
    return {static_cast<double>(own) / static_cast<double>(in_step), batch == begin,
            batch + 1 == begin + most || (batch + 1) * batch_size >= samples};
  }
};

/// The parameters of a network and what became of their gradients, for one step.
template <class T, class B>
class Update {
 public:
  /// `sums` is where gradients are summed; empty for steps of one batch.
  Update(model::Network<T, B>& net, model::Training<T, B>& training, model::Workspace<T>& w,
         backend::Memory<T, B>& sums)
      : net_(net), training_(training), w_(w), sums_(sums), settings_(training.rules.settings(net)) {}

  /// Takes the gradients of a batch; the last one of a step changes the parameters.
  void run(const Share& share, const StepName& name) {
    if (!(share.first && share.last)) sum(share);
    if (!share.last) return;
    check_and_clip(name);
    step();
  }

 private:
  using Slot = typename model::Network<T, B>::Slot;

  void store_gradient(Slot& s) {
    if (s.dy) net_.backend().multiply(net_.gradient_product(w_, s));
    s.dy = {};
  }

  /// The gradient of l1 |w| + l2 w^2.
  void add_penalty(Slot& s, const model::GroupOptions& group) {
    if (group.l1 == 0 && group.l2 == 0) return;
    const auto add = [&](T* gradient, T* value, std::size_t n) {
      net_.backend().map(
          [l1 = group.l1, l2 = group.l2](auto g, auto w) {
            using math::select, math::number;
            using V = decltype(g);
            const V zero = number<V>(0), one = number<V>(l1);
            return g + number<V>(2 * l2) * w + V(select(w > zero, one, V(select(w < zero, V(zero - one), zero))));
          },
          Panels<T>{gradient, n, 1, 1}, Panels<const T>{gradient, n, 1, 1}, Panels<const T>{value, n, 1, 1});
    };
    if (!s.by_rows) return add(s.gradient.data, s.value.data, s.value.rows * s.value.stride);
    for (std::size_t k = 0; k < s.used.rows.size(); ++k)
      add(s.gradient.row(k), s.value.row(s.used.rows[k]), s.value.stride);
  }

  void sum(const Share& share) {
    auto& store = net_.store();
    bool first = share.first;
    if (sums_.size() != store.block_size()) {
      sums_ = {};
      sums_ = {net_.backend(), store.block_size()};
      first = true;
    }
    const auto slots = net_.gradient_slots();
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (settings_[i].frozen) continue;
      store_gradient(slots[i]);
      const auto& place = store.places()[i];
      if (slots[i].by_rows) {
        sum_rows(slots[i], sums_.data() + place.offset, share);
        continue;
      }
      const Panels<T> own{slots[i].gradient.data, place.size(), 1, 1};
      const Panels<T> so_far{sums_.data() + place.offset, place.size(), 1, 1};
      const auto scaled = [scale = share.of_step](auto g) { return math::number<decltype(g)>(scale) * g; };
      const auto added = [scaled](auto g, auto sum) { return sum + scaled(g); };
      const Panels<T> to = share.last ? own : so_far;
      if (first)
        net_.backend().map(scaled, to, Panels<const T>(own));
      else
        net_.backend().map(added, to, Panels<const T>(own), Panels<const T>(so_far));
    }
  }

  /// The sums of rows that no batch of a step has used are zero, and stay so.
  void sum_rows(Slot& s, T* sums, const Share& share) {
    const std::size_t stride = s.gradient.stride;
    const auto row = [stride](T* data, std::size_t r) { return Panels<T>{data + r * stride, stride, 1, 1}; };
    std::vector<std::uint32_t>& all = s.used.summed;
    if (share.first) all.clear();
    const auto added = [scale = share.of_step](auto g, auto sum) { return sum + math::number<decltype(g)>(scale) * g; };
    for (std::size_t k = 0; k < s.used.rows.size(); ++k) {
      const Panels<T> to = row(sums, s.used.rows[k]);
      net_.backend().map(added, to, Panels<const T>(row(s.gradient.data, k)), Panels<const T>(to));
    }
    all.insert(all.end(), s.used.rows.begin(), s.used.rows.end());
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    if (!share.last) return;
    s.used.rows = all;
    for (std::size_t k = 0; k < all.size(); ++k) {
      const Panels<T> from = row(sums, all[k]);
      net_.backend().map([](auto g) { return g; }, row(s.gradient.data, k), Panels<const T>(from));
      net_.backend().fill(from.data, stride, T(0));
    }
  }

  /// All gradients are looked at before the first parameter changes. A sum of products dy x^T that is not stored is no
  /// longer than |dy| |x|; it is made where that is not enough to know it finite.
  void check_and_clip(const StepName& name) {
    const auto check = [&](double squares, std::string_view parameter) {
      if (!is_finite(squares))
        raise<DataError>(name, "the gradient of ", parameter,
                         " is not finite. The parameters are as the step before left them; try a "
                         "smaller learning rate, or .clip_norm");
    };
    const auto length_of = [&](Panels<const T> p) {
      if (p.data == w_.input().data) return w_.input_limit() * std::sqrt(static_cast<double>(p.batch * p.features));
      return std::sqrt(net_.squared_norm(p));
    };
    B& backend = net_.backend();
    const auto slots = net_.gradient_slots();
    const double clip = training_.optimizer->facts().clip_norm;
    const bool stored = clip > 0 || training_.optimizer->facts().directions;
    double squares = 0;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      auto& s = slots[i];
      if (settings_[i].frozen) continue;
      const bool penalised = settings_[i].group.l1 != 0 || settings_[i].group.l2 != 0;
      if (s.dy && !stored && !penalised &&
          length_of(s.dy) * length_of(s.x) <= static_cast<double>(std::numeric_limits<T>::max()))
        continue;
      store_gradient(s);
      add_penalty(s, settings_[i].group);
      const double own = backend.squared_norm(s.stored());
      check(own, net_.store().places()[i].name);
      squares += own;
    }
    if (clip == 0) return;
    check(squares, "all parameters");
    const double norm = std::sqrt(squares);
    if (norm <= clip) return;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (settings_[i].frozen) continue;
      const backend::Matrix<T> g = slots[i].stored();
      const Panels<T> all{g.data, g.rows * g.stride, 1, 1};
      backend.map([scale = clip / (norm + 1e-6)](auto v) { return v * math::number<decltype(v)>(scale); }, all,
                  Panels<const T>(all));
    }
  }

  void step() {
    B& backend = net_.backend();
    auto& store = net_.store();
    const auto slots = net_.gradient_slots();
    store.touch();
    model::StepOptions options{++training_.step};
    options.learning_rate = training_.rate;
    std::vector<T*>& state = training_.slot_pointers;
    state.resize(store.slots());
    for (std::size_t i = slots.size(); i-- > 0;) {
      if (settings_[i].frozen) continue;
      options.factor = slots[i].rate * settings_[i].group.rate * (training_.rate ? 1 : training_.rate_factor);
      options.weight_decay = settings_[i].group.weight_decay;
      options.rows.reset();
      if (slots[i].by_rows) options.rows = slots[i].used.rows;
      for (std::size_t s = 0; s < state.size(); ++s) state[s] = store.slot(s) + store.places()[i].offset;
      if (slots[i].dy)
        training_.optimizer->update(backend, options, slots[i].value, state, nullptr,
                                    net_.gradient_product(w_, slots[i]));
      else
        training_.optimizer->update(backend, options, slots[i].value, state, slots[i].gradient.data, {});
    }
  }

  model::Network<T, B>& net_;
  model::Training<T, B>& training_;
  model::Workspace<T>& w_;
  backend::Memory<T, B>& sums_;
  const std::vector<model::ParameterSetting>& settings_;
};

/// A step of the running averages of all parameters. The first ones follow the parameters faster, so that little is
/// left of the values that training began with.
template <class T, class B>
void average_parameters(model::Network<T, B>& net, model::Training<T, B>& training, double decay) {
  const auto& store = net.store();
  const double t = static_cast<double>(++training.averaged_steps);
  const double share = 1 - std::min(decay, t / (t + 9));
  const Panels<T> average{store.average(), store.block_size(), 1, 1}, value{store.values(), store.block_size(), 1, 1};
  net.backend().map([share](auto a, auto v) { return a + math::number<decltype(a)>(share) * (v - a); }, average,
                    Panels<const T>(average), Panels<const T>(value));
}

/// Puts the averages where the parameters are, and these where those were.
template <class T, class B>
void exchange_averages(model::Network<T, B>& net, model::Training<T, B>& training) {
  auto& store = net.store();
  const std::size_t size = store.block_size();
  net.backend().update([](auto& value, auto, auto& state) { std::swap(value, state[0]); },
                       backend::Updated<T, 1>{{store.values(), 1, size, size}, {store.average()}}, store.values());
  training.averages_in_place = !training.averages_in_place;
  store.touch();
}

/// For a fit that keeps averages, or one that does not and so forgets them.
template <class T, class B>
[[gnu::cold]] void begin_averages(model::Network<T, B>& net, model::Training<T, B>& training, bool wanted) {
  if (wanted && training.averages_in_place) exchange_averages(net, training);
  if (!wanted || !net.store().averaged()) training.averaged_steps = 0;
  net.store().keep_average(wanted);
  training.averages_in_place = false;
}

/// The averages in the place of the parameters, for a scope.
template <class T, class B>
class WithAverages {
 public:
  WithAverages(model::Network<T, B>& net, model::Training<T, B>& training)
      : net_(net), training_(training), exchanged_(net.store().averaged() && !training.averages_in_place) {
    if (exchanged_) exchange_averages(net_, training_);
  }
  ~WithAverages() {
    if (exchanged_) exchange_averages(net_, training_);
  }
  WithAverages(const WithAverages&) = delete;
  WithAverages& operator=(const WithAverages&) = delete;

 private:
  model::Network<T, B>& net_;
  model::Training<T, B>& training_;
  bool exchanged_;
};

}  // namespace tesla::inline TESLA_TARGET::training
