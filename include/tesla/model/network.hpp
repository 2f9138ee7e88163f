// A chain of layers with its parameters: built from shapes, run forward and backward.
#pragma once

#include <tesla/layer/products.hpp>
#include <tesla/model/course.hpp>
#include <tesla/model/layers.hpp>
#include <tesla/model/parameters.hpp>
#include <tesla/model/workspace.hpp>
#include <tesla/network/on_host.hpp>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

template <class T, class B>
class Network : public Layers<T, B> {
  using Layers<T, B>::entries_, Layers<T, B>::built_, Layers<T, B>::place_of, Layers<T, B>::checked_setup;

 public:
  using typename Layers<T, B>::Entry;
  using Layers<T, B>::describe;
  using Slot = typename layer::Pass<T, B>::Slot;
  static constexpr std::size_t no_layer = model_input;

  explicit Network(std::uint64_t seed)
      : backend_(std::make_unique<B>()), store_(*backend_, next_stamp()), seed_(seed) {}

  B& backend() const { return *backend_; }
  ParameterStore<T, B>& store() { return store_; }
  const ParameterStore<T, B>& store() const { return store_; }
  const Shape& input_shape() const { return input_; }
  const Shape& output_shape() const { return entries_.empty() ? input_ : entries_.back().out; }
  std::uint64_t seed() const { return seed_; }
  /// A number, never 0, that is another one whenever the parameters have other places, and in every other network.
  std::uint64_t structure() const { return structure_; }
  /// Layers before this one need no gradients.
  void train_from(std::size_t layer) { first_trained_ = layer; }

  /// Computes all shapes for samples of shape `input` and makes the parameters. Parameters that were there before,
  /// under the same name and shape, keep their values and optimizer state. On an error nothing has changed.
  void build(const Shape& input) {
    build(input, [](const auto&) {});
  }
  /// The same; `before_memory` sees the places of all parameters before any memory is taken for them. The parameters of
  /// layer `replaced` do not keep what was there before.
  template <class Check>
  [[gnu::cold]] void build(const Shape& input, const Check& before_memory, std::size_t replaced = no_layer) {
    if (entries_.empty()) raise<UsageError>("build: the model has no layers; add some with add_layer");
    if (input.rank() == 0 || input.elements() == 0)
      raise<ShapeError>("build: samples need at least one feature, not shape ", input);
    ParameterStore<T, B> store(*backend_, store_.owner());
    std::vector<layer::Setup> setups;
    std::vector<Shape> shapes{input};
    std::vector<std::size_t> first;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      setups.emplace_back(seed_ + 0x9E3779B97F4A7C15 * (i + 1));
      std::vector<Shape> in;
      for (const std::size_t source : entries_[i].from) in.push_back(shapes[source + 1]);  // model_input + 1 is 0
      shapes.push_back(checked_setup(i, in, setups[i]));
      first.push_back(store.places().size());
      for (const auto& p : setups[i].parameters()) store.add(entries_[i].name + "." + p.name, p, i);
    }
    before_memory(store.places());
    store.allocate_values();
    for (std::size_t i = 0; i < entries_.size(); ++i)
      for (std::size_t j = 0; j < setups[i].parameters().size(); ++j)
        initialise(store, first[i] + j, setups[i].parameters()[j], j, i != replaced);
    // Only now, so that what the initialisers took is never there together with it.
    store.allocate_gradients();
    store.allocate_slots(store_.slots(), store_.averaged());
    keep_slots(store, replaced);

    for (std::size_t i = 0; i < entries_.size(); ++i) {
      Entry& e = entries_[i];
      e.node->keep_setup();
      e.brought.clear();
      e.in = shapes[e.from[0] + 1], e.out = shapes[i + 1];
      e.first_parameter = first[i], e.parameters = setups[i].parameters().size();
      e.kept = setups[i].kept(), e.sums_products = setups[i].sums_products();
    }
    store_ = std::move(store);
    input_ = input;
    built_ = true;
    prepare();
  }

  /// What a batch needs in memory, in elements.
  std::size_t workspace_size(std::size_t batch, bool training, std::size_t target_features) const {
    return Workspace<T>(needs(training, target_features)).lay_out(nullptr, batch, lanes(batch), training);
  }

  /// The memory of a batch; after the first of its size this allocates nothing.
  Workspace<T>& workspace(std::size_t batch, bool training, std::size_t target_features) {
    Workspace<T>& w = workspaces_[training];
    if (laid_out_ == training && w.batch() == batch && w.needs().target == target_features) return w;
    laid_out_.reset();
    w.set_target(target_features);
    const std::size_t size = w.lay_out(nullptr, batch, lanes(batch), training);
    if (size > arena_.size()) {
      arena_ = {};  // first, so that the old and the new are never there together
      arena_ = {*backend_, size};
    }
    w.lay_out(arena_.data(), batch, lanes(batch), training);
    laid_out_ = training;
    return w;
  }
  std::size_t arena_size() const { return arena_.size(); }

  /// What layers draw at random for the next batch follows from the step that it belongs to, and its place therein.
  void begin_batch(std::size_t step, bool first) {
    batch_number_ = first ? std::uint64_t{step} << 16 : batch_number_ + 1;
  }

  /// Runs the layers on the input of the workspace; the result is workspace().outputs.back().
  void forward(Workspace<T>& w) {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (course(w)[i].passthrough) continue;
      auto pass = make_pass(w, i);
      if (!entries_[i].node->facts().joins) {
        entries_[i].node->forward(pass, w.input_of(i), w.output(i));
        continue;
      }
      joined_.clear();
      for (const std::size_t source : course(w).wiring().sources(i)) joined_.push_back(w.source(source));
      entries_[i].node->join(pass, joined_, w.output(i));
    }
  }

  /// From the gradient by the last output to those of all parameters.
  void backward(Workspace<T>& w) {
    for (auto& slot : slots_) slot.dy = slot.x = {}, slot.used.rows.clear();
    std::fill(reached_.begin(), reached_.end(), false);
    for (std::size_t i = entries_.size(); i-- > first_trained_;) {
      if (course(w)[i].passthrough) continue;
      auto pass = make_pass(w, i);
      if (entries_[i].node->facts().joins) {
        parted_.clear();
        for (const std::size_t source : course(w).wiring().sources(i)) parted_.push_back(gradient_of(w, source));
        entries_[i].node->part(pass, w.gradient(i), parted_);
        continue;
      }
      const layer::JoinedGradient<T> to = gradient_of(w, course(w).wiring().sources(i)[0]);
      const Panels<T> dx = to.add ? w.spare(to.dx.features) : to.dx;
      entries_[i].node->backward(pass, w.input_of(i), w.output(i), w.gradient(i), dx);
      if (to.add)
        backend_->map([](auto a, auto b) { return a + b; }, to.dx, Panels<const T>(to.dx), Panels<const T>(dx));
      for (const Slot& slot : pass.slots)
        if (slot.dy) check_products(i, slot);
    }
  }

  /// The gradient of Pass::sum_products. The product refers to scratch memory, until the next call.
  backend::Product<T> gradient_product(Workspace<T>& w, const Slot& slot) {
    backend::Matrix<T> rows = w.gathered_rows();
    if (slot.x.batch > 1 && slot.x.data != w.input().data) {
      rows = {w.scratch_rows().data, slot.x.batch, slot.x.features, backend::row_stride<T>(slot.x.features)};
      backend_->transpose(slot.x, rows);
    }
    return layer::weight_product(slot.gradient, slot.dy, slot.x, rows);
  }

  /// A layer by its name, whatever its type.
  [[gnu::cold]] LayerView view(std::string_view name) const {
    const Entry& e = entries_[place_of(name)];
    LayerView view{e.name, std::string(e.node->kind())};
    for (std::size_t p = 0; p < e.parameters && !view.form; ++p)
      view.form = store_.places()[e.first_parameter + p].form;
    return view;
  }

  /// A layer by its name; where it can begin with values, with those that its parameters have now.
  template <class L>
  [[gnu::cold]] L layer(std::string_view name) const {
    const Entry& e = entries_[place_of(name)];
    const auto* node = dynamic_cast<const LayerNodeOf<L, T, B>*>(e.node.get());
    if (node == nullptr) raise<UsageError>("layer: \"", name, "\" is of kind ", e.node->kind(), ", not ", L::kind);
    L result = node->layer();
    if constexpr (requires { result.initial = std::make_shared<const layer::Values>(); })
      result.initial = std::make_shared<const layer::Values>(values_of(e, store_.values()));
    return result;
  }

  /// The layer at a place, if it is of this type.
  template <class L>
  [[gnu::cold]] L* layer_at(std::size_t i) {
    auto* const node = dynamic_cast<LayerNodeOf<L, T, B>*>(entries_[i].node.get());
    return node == nullptr ? nullptr : &node->layer();
  }

  /// What a block of the store, values, gradients or an optimizer's slot, holds of one layer.
  [[gnu::cold]] layer::Values values_of(const Entry& e, const T* block) const {
    layer::Values values;
    for (std::size_t p = 0; p < e.parameters; ++p) {
      const ParameterPlace& place = store_.places()[e.first_parameter + p];
      const Tensor<T> now = store_.read(block, place);
      values.emplace_back(place.shape);
      std::copy(now.begin(), now.end(), values.back().begin());
    }
    return values;
  }

  /// What each of the optimizer's slots holds of one layer.
  [[gnu::cold]] std::vector<layer::Values> slots_of(const Entry& e) const {
    std::vector<layer::Values> slots;
    for (std::size_t s = 0; s < store_.slots(); ++s) slots.push_back(values_of(e, store_.slot(s)));
    return slots;
  }

  /// Puts a layer in the place of another one. It begins with values of its own and with an optimizer state for each of
  /// them, slot by slot, or none; all other layers keep theirs. On an error nothing has changed.
  template <layer::Layer L>
  [[gnu::cold]] void replace(std::size_t i, L layer, const std::vector<layer::Values>& slots = {}) {
    replace(i, std::unique_ptr<LayerNode<T, B>>(std::make_unique<LayerNodeOf<L, T, B>>(std::move(layer))), slots);
  }
  /// The same with a layer of any type; returns the one that was there.
  [[gnu::cold]] std::unique_ptr<LayerNode<T, B>> replace(std::size_t i, std::unique_ptr<LayerNode<T, B>> node,
                                                         const std::vector<layer::Values>& slots = {}) {
    entries_[i].node.swap(node);
    try {
      build(
          input_, [](const auto&) {}, i);
    } catch (...) {
      entries_[i].node.swap(node);
      throw;
    }
    for (std::size_t s = 0; s < std::min(slots.size(), store_.slots()); ++s)
      for (std::size_t p = 0; p < entries_[i].parameters; ++p)
        store_.write(store_.slot(s), store_.places()[entries_[i].first_parameter + p], slots[s].at(p).data());
    return node;
  }

  /// Gives a parameter other entries of its matrix: number `from[k]` of those before becomes number k, with its
  /// optimizer state; where that is none, a new one begins at zero.
  [[gnu::cold]] void reform(std::size_t parameter, std::shared_ptr<const layer::StoredOrder> form,
                            const std::vector<std::uint32_t>& from) {
    constexpr std::uint32_t none = layer::StoredOrder::none;
    const ParameterPlace& place = store_.places()[parameter];
    // For each place of the new order the one of the old: both orders are long, and made once.
    std::vector<std::uint32_t> moved = form->order(), places(place.shape.elements());
    const std::vector<std::uint32_t> before = place.form->order();
    for (std::size_t k = 0; k < before.size(); ++k)
      if (before[k] != none) places[before[k]] = static_cast<std::uint32_t>(k);
    for (std::uint32_t& k : moved)
      if (k != none) k = from[k] == none ? none : places[from[k]];
    const auto block = [&](std::size_t s) { return s == 0 ? store_.values() : store_.slot(s - 1); };
    std::vector<std::vector<T>> all(store_.slots() + 1, std::vector<T>(moved.size()));
    std::vector<T> old(before.size());
    for (std::size_t s = 0; s < all.size(); ++s) {
      backend_->read(old.data(), block(s) + place.offset, old.size());
      for (std::size_t k = 0; k < moved.size(); ++k)
        if (moved[k] != none) all[s][k] = old[moved[k]];
    }
    store_.reform(parameter, std::move(form), from.size());
    for (std::size_t s = 0; s < all.size(); ++s) backend_->write(block(s) + place.offset, all[s].data(), moved.size());
    slots_[parameter].value = store_.matrix(store_.values(), place);
    slots_[parameter].gradient = store_.matrix(store_.gradients(), place);
    structure_ = next_stamp();
  }

  /// Of the samples' values, not of lanes without a sample.
  double squared_norm(Panels<const T> p) const {
    T* const data = const_cast<T*>(p.data);
    const std::size_t whole = p.batch / p.lanes * p.stride();
    double squares = backend_->squared_norm(backend::Matrix<T>{data, 1, whole, whole});
    if (const std::size_t rest = p.batch % p.lanes; rest != 0)
      squares += backend_->squared_norm(backend::Matrix<T>{data + whole, p.features, rest, p.lanes});
    return squares;
  }

  using Layers<T, B>::add;
  /// Takes the layers of another network, with their values if it was built.
  [[gnu::cold]] void add(Network&& other) {
    std::vector<std::vector<Tensor<T>>> values(other.built() ? other.entries_.size() : 0);
    for (std::size_t i = 0; i < values.size(); ++i)
      for (std::size_t p = 0; p < other.entries_[i].parameters; ++p)
        values[i].push_back(
            other.store_.read(other.store_.values(), other.store_.places()[other.entries_[i].first_parameter + p]));
    Layers<T, B>::add(std::move(other), std::move(values));
  }

  /// Layers that read the samples themselves say which of them they have no use for; `what` names the array.
  [[gnu::cold]] void check_samples(const ArrayView& x, std::string_view what) const {
    for (std::size_t i = 0; i < entries_.size(); ++i)
      if (!courses_[1][i].passthrough && courses_[1].wiring().sources(i)[0] == model_input)
        entries_[i].node->check_samples(x, what);
  }

  /// Takes build() back: the shapes are open again.
  void unbuild() { built_ = false; }

  std::span<Slot> gradient_slots() { return slots_; }

  /// The first layer whose output holds a NaN or an infinity.
  [[gnu::cold]] std::string first_overflow(Workspace<T>& w) const {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const Panels<const T> y = w.output(i);
      std::vector<T> host(y.batch * y.features);
      backend_->scatter(y, host.data());
      for (const T v : host)
        if (!is_finite(v)) return describe(i);
    }
    return "the loss itself";
  }

 private:
  std::size_t lanes(std::size_t batch) const { return B::template lanes<T>(batch); }

  /// Where a gradient by the output of a layer goes: nowhere, if nothing before it learns.
  layer::JoinedGradient<T> gradient_of(Workspace<T>& w, std::size_t layer) {
    if (layer == model_input || layer < first_trained_) return {};
    const bool add = reached_[layer];
    reached_[layer] = true;
    return {w.gradient(layer), add};
  }

  [[gnu::cold]] void initialise(ParameterStore<T, B>& store, std::size_t index,
                                const layer::Setup::Parameter& parameter, std::size_t number, bool keeps) {
    const ParameterPlace& place = store.places()[index];
    if (const ParameterPlace* old = keeps ? store_.find(place) : nullptr)
      store.write(store.values(), place, store_.read(store_.values(), *old).data());
    else if (const auto& brought = entries_[place.layer].brought; !brought.empty())
      store.write(store.values(), place, brought[number].data());
    else if (parameter.values != nullptr)
      store.write(store.values(), place, parameter.values->data());
    else if (parameter.draw)
      store.write(store.values(), place, parameter.draw(seed_, index).data());
    else
      store.write(store.values(), place, parameter.initializer.values(parameter.initialized_as, seed_, index).data());
  }

  /// The optimizer's state of the parameters that were there before.
  [[gnu::cold]] void keep_slots(ParameterStore<T, B>& store, std::size_t replaced) const {
    for (const ParameterPlace& place : store.places())
      if (const ParameterPlace* old = place.layer != replaced ? store_.find(place) : nullptr)
        for (std::size_t s = 0; s < store.slots(); ++s)
          store.write(store.slot(s), place, store_.read(store_.slot(s), *old).data());
      else if (store.averaged())
        store.write(store.average(), place, store.read(store.values(), place).data());
  }

  [[gnu::cold]] WorkspaceNeeds needs(bool training, std::size_t target_features) const {
    const Course<T, B>& course = courses_[training];
    WorkspaceNeeds n;
    n.input = input_.elements();
    n.target = target_features;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const Entry& e = entries_[i];
      const Step& step = course[i];
      const std::size_t source = course.wiring().sources(i)[0];
      const std::size_t out = step.pool != nullptr ? step.pool->out_features() : e.out.elements();
      std::vector<std::size_t> kept = e.kept;
      if (step.pool != nullptr) kept.assign(e.node->pooling_need(*step.pool, 1, true)->kept, out);
      n.layers.push_back(
          {out, step.passthrough, step.normalised != no_layer, e.sums_products, source, course.wiring().lasting(i),
           std::move(kept),
           [node = e.node.get(), pool = step.pool, folded = folded_size(i, step)](std::size_t batch, bool in_training) {
             MemoryNeed need = node->memory(batch, in_training);
             need.kept += folded;
             need.scratch += whole_size(*node, pool, batch, in_training);
             return need;
           }});
      if (source == model_input && e.sums_products) n.gathered_rows = true;
      if (source != model_input && !e.node->facts().joins && course.wiring().readers(source) > 1)
        n.spare = std::max(n.spare, e.in.elements());
      for (std::size_t p = 0; p < e.parameters && e.sums_products; ++p)
        n.rows = std::max(n.rows, store_.places()[e.first_parameter + p].columns);
    }
    return n;
  }

  void check_products(std::size_t i, const Slot& slot) const {
    if (!entries_[i].sums_products)
      raise<UsageError>(describe(i), ": Pass::sum_products has to be asked for in setup(), with Setup::sum_products");
    if (slot.dy.features != slot.value.rows || slot.x.features != slot.value.columns)
      raise<ShapeError>(describe(i), ": sum_products of ", slot.dy.features, " and ", slot.x.features,
                        " features is no gradient of a parameter of ", slot.value.rows, " x ", slot.value.columns);
  }

  [[gnu::cold]] void prepare() {
    for (const bool training : {false, true}) courses_[training] = Course<T, B>(entries_, training);
    reached_.assign(entries_.size(), false);
    for (const bool training : {false, true}) workspaces_[training] = Workspace<T>(needs(training, 0));
    laid_out_.reset();
    arena_ = {};
    structure_ = next_stamp();
    slots_.clear();
    folded_slots_.assign(entries_.size(), {});
    for (const ParameterPlace& p : store_.places()) {
      Slot slot;
      slot.value = store_.matrix(store_.values(), p);
      slot.gradient = store_.matrix(store_.gradients(), p);
      slot.rate = p.rate;
      slot.by_rows = p.by_rows;
      slots_.push_back(slot);
    }
    first_trained_ = entries_.size();
    for (std::size_t i = entries_.size(); i-- > 0;)
      if (entries_[i].parameters != 0) first_trained_ = i;
  }

  using Step = typename Course<T, B>::Step;
  const Course<T, B>& course(const Workspace<T>& w) const { return courses_[w.training()]; }

  [[gnu::noinline]] layer::Pass<T, B> make_pass(Workspace<T>& w, std::size_t i) {
    const Entry& e = entries_[i];
    const Step& step = course(w)[i];
    std::span<T> scratch = w.scratch(), kept_memory = w.kept_memory(i);
    T* const whole = scratch.data();
    scratch = scratch.subspan(whole_size(*e.node, step.pool, w.batch(), w.training()));
    layer::Pass<T, B> pass{*backend_,
                           w.training(),
                           e.in,
                           slots_of_layer(i),
                           w.kept(i),
                           kept_memory,
                           scratch,
                           {store_.stamp(), w.stamp()},
                           batch_number_,
                           step.activation_moved,
                           step.moved_activation,
                           step.pool,
                           whole,
                           nullptr,
                           step.normalised != no_layer && !slots_of_layer(step.normalised)[0].frozen};
    if (step.folded != no_layer) fold(pass, i, step.folded, folded_size(i, step));
    return pass;
  }

  /// Room for all outputs of a layer with pooling inside it, in whole cache lines.
  static std::size_t whole_size(const LayerNode<T, B>& node, const backend::Convolution* pool, std::size_t batch,
                                bool training) {
    if (pool == nullptr) return 0;
    return round_up(node.pooling_need(*pool, batch, training)->whole, line);
  }

  /// Room for the weights of a layer into which a normalisation is folded, for the bias and for the factors, behind a
  /// head that says from which values they were made.
  std::size_t folded_size(std::size_t i, const Step& step) const {
    if (step.folded == no_layer) return 0;
    const ParameterPlace& weight = store_.places()[entries_[i].first_parameter];
    return line + weight.rows * weight.stride + 2 * round_up(weight.rows, line);
  }
  /// The pass of layer i with weights and bias into which normalisation `norm` is folded.
  [[gnu::noinline, gnu::cold]] void fold(layer::Pass<T, B>& pass, std::size_t i, std::size_t norm, std::size_t size) {
    T* const head = pass.kept_memory.data();
    Slot& folded = folded_slots_[i];
    const backend::Matrix<T> from = pass.slots[0].value;
    folded.value = {head + line, from.rows, from.columns, from.stride};
    T* const bias = head + line + from.rows * from.stride;
    const bool has_bias = pass.slots.size() > 1;
    if (!network::made_before<B>(head, pass.stamps)) {
      const auto host = [&](T* data, std::size_t n, bool read) {
        return network::OnHost<T, B>(*backend_, data, n, read);
      };
      const std::size_t size_of_all = from.rows * from.stride;
      auto weights = host(from.data, size_of_all, true), to = host(folded.value.data, size_of_all, false);
      auto shifts = host(bias, 2 * round_up(from.rows, line), false);
      auto before = host(has_bias ? pass.slots[1].value.data : bias, from.rows, has_bias);
      T *const plus = shifts.data(), *const times = plus + round_up(from.rows, line);
      layer::Pass<T, B> of_norm{*backend_, false, entries_[norm].in, slots_of_layer(norm), {}, {}, {}};
      entries_[norm].node->affine(of_norm, std::span<T>(times, from.rows), std::span<T>(plus, from.rows));
      for (std::size_t r = 0; r < from.rows; ++r) {
        for (std::size_t c = 0; c < from.stride; ++c)
          to.data()[r * from.stride + c] = times[r] * weights.data()[r * from.stride + c];
        if (has_bias) plus[r] += times[r] * before.data()[r];
      }
      to.send(*backend_), shifts.send(*backend_);
    }
    pass.slots = std::span<Slot>(&folded, 1);
    pass.folded_bias = bias;
    pass.kept_memory = pass.kept_memory.subspan(size);
  }
  std::span<Slot> slots_of_layer(std::size_t i) {
    return std::span(slots_).subspan(entries_[i].first_parameter, entries_[i].parameters);
  }

  static constexpr std::size_t line = cache_line / sizeof(T);

  std::unique_ptr<B> backend_;
  ParameterStore<T, B> store_;
  std::array<Course<T, B>, 2> courses_;  // in predictions, in training
  std::array<Workspace<T>, 2> workspaces_;
  std::optional<bool> laid_out_;  // which of these lies in the arena
  backend::Memory<T, B> arena_;
  std::vector<Slot> slots_, folded_slots_;
  std::vector<bool> reached_;  // by a gradient, in this backward pass
  std::vector<Panels<const T>> joined_;
  std::vector<layer::JoinedGradient<T>> parted_;
  std::size_t first_trained_ = 0;
  std::uint64_t structure_ = 0, batch_number_ = 0;
  Shape input_;
  std::uint64_t seed_;
};

}  // namespace tesla::inline TESLA_TARGET::model
