// The layers of a network, their names, and how they are put together from what a user adds.
#pragma once

#include <tesla/model/node.hpp>
#include <tesla/model/wiring.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// What can be said of a layer of any type.
struct LayerView {
  std::string name, kind;
  std::shared_ptr<const layer::StoredOrder> form = {};

  /// Which weights are live, of a layer with sparse ones.
  [[gnu::cold]] sparse::Pattern pattern() const {
    if (!form) raise<UsageError>("layer: \"", name, "\" is of kind ", kind, ", which has no sparse weights");
    return form->pattern();
  }
};

/// Kinds of layers, for Sequential::load.
template <class... L>
struct LayerList {};

/// The kinds of layers that a program names somewhere: those that it can load from a file. (Compiling all kinds there
/// are takes longer than most programs do.)
template <class T, class B>
class LayerKinds {
 public:
  using Make = std::unique_ptr<LayerNode<T, B>> (*)(const io::Json& options, const std::string& name);

  /// Whether this kind is there; where this is named, it is.
  template <class L>
  static const bool has;

  /// Names all of a list.
  template <class... L>
  static void name(LayerList<L...>) {
    (static_cast<void>(has<L>), ...);
  }

  /// Makes a layer of a kind, or nothing if there is no such kind.
  [[gnu::cold]] static std::unique_ptr<LayerNode<T, B>> make(std::string_view kind, const io::Json& options,
                                                             const std::string& name) {
    for (const auto& [known, make] : all())
      if (known == kind) return make(options, name);
    return nullptr;
  }

 private:
  static std::vector<std::pair<std::string_view, Make>>& all() {
    static std::vector<std::pair<std::string_view, Make>> kinds;
    return kinds;
  }
  /// Only a layer whose fields() say what a file keeps of it can be made again.
  template <class L>
  [[gnu::cold]] static bool enter() {
    if constexpr (std::default_initializable<L> && requires(L layer, FieldReader reader) {
                    layer.fields(reader);
                    layer.name;
                  })
      all().emplace_back(L::kind, [](const io::Json& options, const std::string& name) {
        L layer;
        layer.fields(FieldReader{options});
        layer.name = name;
        return std::unique_ptr<LayerNode<T, B>>(std::make_unique<LayerNodeOf<L, T, B>>(std::move(layer)));
      });
    return true;
  }
};
template <class T, class B>
template <class L>
const bool LayerKinds<T, B>::has = enter<L>();

/// Entry::checkpoint of a layer that was marked by itself.
inline constexpr std::size_t marked_layer = 1;

template <class T, class B>
class Layers {
 public:
  /// One layer in its place.
  struct Entry {
    std::unique_ptr<LayerNode<T, B>> node;
    std::string name;
    std::vector<std::size_t> from;  // the layers that it reads, or model_input
    Shape in, out;                  // of one sample, once built
    std::size_t first_parameter = 0, parameters = 0;
    std::vector<std::size_t> kept;
    bool sums_products = false;
    std::size_t checkpoint = 0;  // not 0: what it needs for gradients is made again; blocks have numbers of their own
    bool nested = false;         // of a model inside this one,
    std::vector<Tensor<T>> brought;  // which had been built: what its parameters begin with
  };

  const std::vector<Entry>& entries() const { return entries_; }
  bool built() const { return built_; }

  /// Adds a layer, or branches with the layers in them, that reads the one added last.
  template <layer::Part L>
  [[gnu::cold]] void add(L part) {
    const std::size_t before = entries_.size();
    const bool was_built = built_;
    try {
      add_part(std::move(part), before == 0 ? model_input : before - 1);
    } catch (...) {
      entries_.resize(before);
      built_ = was_built;
      throw;
    }
  }
  /// Adds one that reads the layers named by their numbers.
  template <class L>
  [[gnu::cold]] void add(L layer, std::vector<std::size_t> from) {
    static_cast<void>(LayerKinds<T, B>::template has<L>);
    add(std::unique_ptr<LayerNode<T, B>>(std::make_unique<LayerNodeOf<L, T, B>>(std::move(layer))), std::move(from));
  }
  [[gnu::cold]] void add(std::unique_ptr<LayerNode<T, B>> node, std::vector<std::size_t> from,
                         std::size_t checkpoint = 0) {
    std::string name = node->facts().name;
    if (!name.empty()) {
      for (const Entry& e : entries_)
        if (e.name == name)
          raise<UsageError>("add_layer: there is already a layer named \"", name, "\"; names have to differ");
    } else {
      name = free_name(node->facts().default_name);
    }
    Entry entry;
    entry.node = std::move(node);
    entry.name = std::move(name);
    entry.from = std::move(from);
    entry.checkpoint = checkpoint;
    entries_.push_back(std::move(entry));
    built_ = false;
  }

  /// Takes the layers of another network; `values` are those of its parameters, layer by layer, if it was built.
  [[gnu::cold]] void add(Layers&& other, std::vector<std::vector<Tensor<T>>> values) {
    if (other.entries_.empty()) raise<UsageError>("add_layer: the model has no layers");
    const std::string prefix = free_name("sequential");
    const std::size_t before = entries_.size(), last = before == 0 ? model_input : before - 1, blocks = blocks_marked();
    for (std::size_t i = 0; i < other.entries_.size(); ++i) {
      Entry entry;
      entry.node = std::move(other.entries_[i].node);
      entry.name = prefix + "." + other.entries_[i].name;
      for (const std::size_t source : other.entries_[i].from)
        entry.from.push_back(source == model_input ? last : source + before);
      if (other.entries_[i].checkpoint != 0)
        entry.checkpoint = other.entries_[i].checkpoint + (other.entries_[i].checkpoint > marked_layer ? blocks : 0);
      entry.nested = true;
      if (!values.empty()) entry.brought = std::move(values[i]);
      entries_.push_back(std::move(entry));
    }
    built_ = false;
  }

  /// The shape that the first layer itself asks for; no extents if it does not.
  Shape wanted_input() const { return entries_.empty() ? Shape() : entries_.front().node->facts().input; }

  /// "layer 3 (dense_1: Dense 128 -> 10)"
  [[gnu::cold]] std::string describe(std::size_t i) const {
    const Entry& e = entries_[i];
    std::string result = text("layer ", i + 1, " (", e.name, ": ", e.node->kind());
    if (built_) result += text(' ', e.in.extents(), " -> ", e.out.extents());
    return result + ")";
  }

 protected:
  [[gnu::cold]] std::size_t place_of(std::string_view name) const {
    std::string known;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].name == name) return i;
      known += (known.empty() ? "" : ", ") + entries_[i].name;
    }
    raise<UsageError>("layer: there is no \"", name, "\", only ", known);
  }

  [[gnu::cold]] Shape checked_setup(std::size_t i, std::span<const Shape> in, layer::Setup& setup) {
    const auto where = [&] {
      const std::size_t source = entries_[i].from[0];
      std::string from = source == model_input ? text("the data has samples of shape ", in[0])
                                               : text("its input, of shape ", in[0], ", comes from layer ", source + 1,
                                                      " (", entries_[source].name, ")");
      return text("layer ", i + 1, " (", entries_[i].name, ": ", entries_[i].node->kind(), "): ", "%s; ", from);
    };
    const auto message = [&](const Error& e) {
      std::string result = where();
      result.replace(result.find("%s"), 2, e.what());
      return result;
    };
    try {
      if (i > 0 && entries_[i].node->facts().input.rank() != 0 && !entries_[i].nested)
        raise<UsageError>("says what shape the data has, so it has to be the first layer");
      return entries_[i].node->setup(in, setup);
    } catch (const ShapeError& e) {
      throw ShapeError(message(e));
    } catch (const UsageError& e) {
      throw UsageError(message(e));
    }
  }

  std::vector<Entry> entries_;
  bool built_ = false;

 private:
  /// How many numbers marked blocks have so far.
  [[gnu::cold]] std::size_t blocks_marked() const {
    std::size_t most = marked_layer;
    for (const Entry& e : entries_) most = std::max(most, e.checkpoint);
    return most - marked_layer;
  }
  /// A name that no layer has, nor a model inside this one.
  [[gnu::cold]] std::string free_name(const std::string& base) const {
    const auto taken = [&](const std::string& name) {
      return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& e) {
        return e.name == name || (e.nested && e.name.compare(0, name.size() + 1, name + ".") == 0);
      });
    };
    std::string name = base;
    for (std::size_t n = 1; taken(name); ++n) name = text(base, '_', n);
    return name;
  }

  template <class L>
  [[gnu::cold]] std::size_t add_part(L layer, std::size_t from) {
    bool checkpoint = false;
    if constexpr (requires { layer.checkpoint_gradients; }) checkpoint = layer.checkpoint_gradients;
    add(std::move(layer), {from});
    entries_.back().checkpoint = checkpoint ? marked_layer : 0;
    return entries_.size() - 1;
  }
  template <class... L>
  [[gnu::cold]] std::size_t add_part(layer::Chain<L...> chain, std::size_t from) {
    const std::size_t first = entries_.size();
    std::apply([&](auto&... parts) { ((from = add_part(std::move(parts), from)), ...); }, chain.layers);
    if (!chain.checkpoint_gradients) return from;
    const std::size_t block = marked_layer + 1 + blocks_marked();
    for (std::size_t i = first; i < entries_.size(); ++i) entries_[i].checkpoint = block;
    return from;
  }
  template <class... L>
  [[gnu::cold]] std::size_t add_part(layer::Residual<L...> residual, std::size_t from) {
    const std::size_t last = add_part(layer::Chain<L...>(std::move(residual.layers)), from);
    add(layer::Sum(), {last, from});
    return entries_.size() - 1;
  }
  template <class J, class... L>
  [[gnu::cold]] std::size_t add_part(layer::Parallel<J, L...> parallel, std::size_t from) {
    std::vector<std::size_t> ends;
    std::apply([&](auto&... parts) { (ends.push_back(add_part(std::move(parts), from)), ...); }, parallel.branches);
    if constexpr (!std::same_as<J, layer::Join>)
      add(std::move(parallel.join), std::move(ends));
    else if (parallel.join == layer::Join::sum)
      add(layer::Sum(), std::move(ends));
    else
      add(layer::Concatenate(), std::move(ends));
    return entries_.size() - 1;
  }
};

}  // namespace tesla::inline TESLA_TARGET::model
