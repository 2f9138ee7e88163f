// A chain of layers with its parameters: built from shapes, changed, and asked.
#pragma once

#include <tesla/model/execution.hpp>

#include <memory>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

template <class T, class B>
class Network : public Execution<T, B> {
  using Base = Execution<T, B>;
  using Base::backend_, Base::store_, Base::entries_, Base::built_, Base::courses_, Base::slots_, Base::input_,
      Base::seed_, Base::place_of, Base::checked_setup, Base::prepare;

 public:
  using Base::Base;
  using Base::describe, Base::structure;
  using Base::no_layer;
  using typename Base::Entry, typename Base::Slot;

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
    ParameterStore<T, B> store(*backend_, store_->owner());
    std::vector<layer::Setup> setups;
    std::vector<Shape> shapes{input};
    std::vector<std::size_t> first;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      setups.emplace_back(Base::seed_of(i));
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
    store.allocate_slots(store_->slots(), store_->averaged());
    keep_slots(store, replaced);

    for (std::size_t i = 0; i < entries_.size(); ++i) {
      Entry& e = entries_[i];
      e.node->keep_setup();
      e.brought.clear();
      e.in = shapes[e.from[0] + 1], e.out = shapes[i + 1];
      e.first_parameter = first[i], e.parameters = setups[i].parameters().size();
      e.kept = setups[i].kept(), e.sums_products = setups[i].sums_products();
    }
    *store_ = std::move(store);
    input_ = input;
    built_ = true;
    prepare();
  }

  /// A layer by its name, whatever its type.
  [[gnu::cold]] LayerView view(std::string_view name) const {
    const Entry& e = entries_[place_of(name)];
    LayerView view{e.name, std::string(e.node->kind())};
    for (std::size_t p = 0; p < e.parameters && !view.form; ++p)
      view.form = store_->places()[e.first_parameter + p].form;
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
      result.initial = std::make_shared<const layer::Values>(values_of(e, store_->values()));
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
      const ParameterPlace& place = store_->places()[e.first_parameter + p];
      const Tensor<T> now = store_->read(block, place);
      values.emplace_back(place.shape);
      std::copy(now.begin(), now.end(), values.back().begin());
    }
    return values;
  }

  /// What each of the optimizer's slots holds of one layer.
  [[gnu::cold]] std::vector<layer::Values> slots_of(const Entry& e) const {
    std::vector<layer::Values> slots;
    for (std::size_t s = 0; s < store_->slots(); ++s) slots.push_back(values_of(e, store_->slot(s)));
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
    for (std::size_t s = 0; s < std::min(slots.size(), store_->slots()); ++s)
      for (std::size_t p = 0; p < entries_[i].parameters; ++p)
        store_->write(store_->slot(s), store_->places()[entries_[i].first_parameter + p], slots[s].at(p).data());
    return node;
  }

  /// Gives a parameter other entries of its matrix: number `from[k]` of those before becomes number k, with its
  /// optimizer state; where that is none, a new one begins at zero.
  [[gnu::cold]] void reform(std::size_t parameter, std::shared_ptr<const layer::StoredOrder> form,
                            const std::vector<std::uint32_t>& from) {
    constexpr std::uint32_t none = layer::StoredOrder::none;
    const ParameterPlace& place = store_->places()[parameter];
    // For each place of the new order the one of the old: both orders are long, and made once.
    std::vector<std::uint32_t> moved = form->order(), places(place.shape.elements());
    const std::vector<std::uint32_t> before = place.form->order();
    for (std::size_t k = 0; k < before.size(); ++k)
      if (before[k] != none) places[before[k]] = static_cast<std::uint32_t>(k);
    for (std::uint32_t& k : moved)
      if (k != none) k = from[k] == none ? none : places[from[k]];
    const auto block = [&](std::size_t s) { return s == 0 ? store_->values() : store_->slot(s - 1); };
    std::vector<std::vector<T>> all(store_->slots() + 1, std::vector<T>(moved.size()));
    std::vector<T> old(before.size());
    for (std::size_t s = 0; s < all.size(); ++s) {
      backend_->read(old.data(), block(s) + place.offset, old.size());
      for (std::size_t k = 0; k < moved.size(); ++k)
        if (moved[k] != none) all[s][k] = old[moved[k]];
    }
    store_->reform(parameter, std::move(form), from.size());
    for (std::size_t s = 0; s < all.size(); ++s) backend_->write(block(s) + place.offset, all[s].data(), moved.size());
    slots_[parameter].value = store_->matrix(store_->values(), place);
    slots_[parameter].gradient = store_->matrix(store_->gradients(), place);
  }

  using Base::add;
  /// Takes the layers of another network, with their values if it was built.
  [[gnu::cold]] void add(Network&& other) {
    std::vector<std::vector<Tensor<T>>> values(other.built() ? other.entries_.size() : 0);
    for (std::size_t i = 0; i < values.size(); ++i)
      for (std::size_t p = 0; p < other.entries_[i].parameters; ++p)
        values[i].push_back(
            other.store_->read(other.store_->values(), other.store_->places()[other.entries_[i].first_parameter + p]));
    Base::add(std::move(other), std::move(values));
  }

  /// Layers that read the samples themselves say which of them they have no use for; `what` names the array.
  [[gnu::cold]] void check_samples(const ArrayView& x, std::string_view what) const {
    for (std::size_t i = 0; i < entries_.size(); ++i)
      if (!courses_[1][i].passthrough && courses_[1].wiring().sources(i)[0] == model_input)
        entries_[i].node->check_samples(x, what);
  }

  /// The same layers, with these parameters, for sequences that come one step at a time.
  [[gnu::cold]] Network by_step() const {
    if (input_.rank() == 0) raise<UsageError>("decoder: samples have no steps");
    Network result(backend_, store_, seed_);
    const std::size_t steps = input_[0];
    result.input_ = input_.tail().with_front(1);
    std::vector<Shape> shapes{result.input_};
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const Entry& e = entries_[i];
      if (!e.node->facts().step_by_step) raise<UsageError>("decoder: ", describe(i), " does not run step by step");
      Entry own;
      own.node = e.node->copy(), own.name = e.name, own.from = e.from;
      result.entries_.push_back(std::move(own));
      std::vector<Shape> in;
      for (const std::size_t source : e.from) in.push_back(shapes[source + 1]);
      layer::Setup setup(Base::seed_of(i), steps);
      shapes.push_back(e.node->facts().input.rank() != 0 ? in[0] : result.checked_setup(i, in, setup));
      Entry& added = result.entries_.back();
      if (e.node->facts().input.rank() == 0) added.node->keep_setup();
      added.in = in[0], added.out = shapes.back();
      added.first_parameter = e.first_parameter, added.parameters = e.parameters;
      added.kept = setup.kept(), added.sums_products = setup.sums_products();
    }
    result.built_ = true;
    result.prepare();
    result.followed_ = structure();
    return result;
  }
  /// The place of the step that comes next, for a network made by by_step().
  void go_to(std::size_t place) {
    if (followed_ != structure())
      raise<UsageError>("decode: the model has been built anew; make another decoder of it");
    Base::place_ = place;
  }

  /// Takes build() back: the shapes are open again.
  void unbuild() { built_ = false; }

 private:
  [[gnu::cold]] void initialise(ParameterStore<T, B>& store, std::size_t index,
                                const layer::Setup::Parameter& parameter, std::size_t number, bool keeps) {
    const ParameterPlace& place = store.places()[index];
    if (const ParameterPlace* old = keeps ? store_->find(place) : nullptr)
      store.write(store.values(), place, store_->read(store_->values(), *old).data());
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
      if (const ParameterPlace* old = place.layer != replaced ? store_->find(place) : nullptr)
        for (std::size_t s = 0; s < store.slots(); ++s)
          store.write(store.slot(s), place, store_->read(store_->slot(s), *old).data());
      else if (store.averaged())
        store.write(store.average(), place, store.read(store.values(), place).data());
  }

  std::uint64_t followed_ = 0;  // the structure of the parameters that by_step() was made for
};

}  // namespace tesla::inline TESLA_TARGET::model
