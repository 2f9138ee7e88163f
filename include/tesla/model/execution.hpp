// A built network at work: the memory of a batch, forward and backward passes, and what is kept between them.
#pragma once

#include <tesla/layer/products.hpp>
#include <tesla/model/course.hpp>
#include <tesla/model/layers.hpp>
#include <tesla/model/parameters.hpp>
#include <tesla/model/workspace.hpp>
#include <tesla/network/on_host.hpp>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

template <class T, class B>
class Execution : public Layers<T, B> {
 public:
  using typename Layers<T, B>::Entry;
  using Layers<T, B>::describe;
  using Slot = typename layer::Pass<T, B>::Slot;
  static constexpr std::size_t no_layer = model_input;

  explicit Execution(std::uint64_t seed)
      : backend_(std::make_shared<B>()),
        store_(std::make_shared<ParameterStore<T, B>>(*backend_, next_stamp())),
        seed_(seed) {}

  B& backend() const { return *backend_; }
  ParameterStore<T, B>& store() { return *store_; }
  const ParameterStore<T, B>& store() const { return *store_; }
  /// A number, never 0, that is another one whenever the parameters have other places, and in every other network.
  std::uint64_t structure() const { return store_->structure(); }
  const Shape& input_shape() const { return input_; }
  const Shape& output_shape() const { return entries_.empty() ? input_ : entries_.back().out; }
  std::uint64_t seed() const { return seed_; }
  std::span<Slot> gradient_slots() { return slots_; }
  /// Layers before this one need no gradients.
  void train_from(std::size_t layer) { first_trained_ = layer; }

  /// Bytes that training may take, parameters and their optimizer included; 0: whatever it takes.
  std::size_t memory() const { return memory_; }
  [[gnu::cold]] void set_memory(std::size_t bytes) {
    memory_ = bytes;
    forget_plans();
  }

  /// What a batch needs in memory, in elements.
  [[gnu::cold]] std::size_t workspace_size(std::size_t batch, bool training, std::size_t target_features) const {
    Workspace<T> w(needs(training, target_features));
    if (training) w.set_plan(checkpoint_plan(batch, target_features));
    return w.lay_out(nullptr, batch, lanes(batch), training);
  }

  /// The memory of a batch; after the first of its size this allocates nothing.
  Workspace<T>& workspace(std::size_t batch, bool training, std::size_t target_features) {
    Workspace<T>& w = workspaces_[training];
    Layout layout{batch, target_features, training};
    if (training && memory_ != 0) layout.left = memory_left(), layout.measured = times_measured();
    if (laid_out_ == layout) return w;
    lay_out(w, layout);
    return w;
  }
  std::size_t arena_size() const { return arena_.size(); }

  /// Which outputs are kept in training, and which are made again; null: all are kept.
  [[gnu::cold]] std::shared_ptr<const CheckpointPlan> checkpoint_plan(std::size_t batch,
                                                                      std::size_t target_features) const {
    if (!may_checkpoint()) return nullptr;
    Workspace<T> w(needs(true, target_features));
    if (memory_ == 0) {
      const MarkedStages stages = marked_stages();
      w.size_up(batch, lanes(batch), true);
      return std::make_shared<const CheckpointPlan>(marked_plan(stages_of(w, stages.ends), stages.marked));
    }
    const std::size_t left = memory_left() / sizeof(T);
    if (w.lay_out(nullptr, batch, lanes(batch), true) <= left) return nullptr;
    CheckpointPlan none;
    none.stages = stages_of(w, courses_[1].wiring().ends_of_stages());
    none.moves.push_back({Move::Kind::back, 0});
    const Checkpointing chain(none.stages);
    w.set_plan(std::make_shared<const CheckpointPlan>(std::move(none)));
    const std::size_t around = w.lay_out(nullptr, batch, lanes(batch), true), least = around + chain.least();
    if (least > left)
      raise<UsageError>("compile's .memory of ", memory_, " bytes is too little to train at batch size ", batch,
                        "; the least is ", memory_held() + least * sizeof(T), " bytes. Take more, or a smaller batch");
    return std::make_shared<const CheckpointPlan>(chain.plan(left - around));
  }
  /// Whether the times in plans are measured, in the first steps of training, or only estimated.
  bool times_measured() const { return memory_ != 0 && timed_steps_ >= steps_to_time; }
  /// What a plan adds to the time of a step that keeps everything, as a share of it.
  double extra_time(const CheckpointPlan& plan) const {
    return (plan.time() - plan.least_time()) / (plan.least_time() + (times_measured() ? besides_ : 0));
  }

  /// What layers draw at random for the next batch follows from the step that it belongs to, and its place therein.
  void begin_batch(std::size_t step, bool first) {
    batch_number_ = first ? std::uint64_t{step} << 16 : batch_number_ + 1;
    if (timing()) batch_began_ = Clock::now(), stages_took_ = 0;
  }
  /// Once the parameters have changed, or the batch has done its part to that.
  void end_batch() {
    if (!timing()) return;
    const double own = seconds(batch_began_, Clock::now()) - stages_took_;
    besides_ = timed_steps_ == 0 ? own : std::min(besides_, own);
    ++timed_steps_;
  }

  /// Runs the layers on the input of the workspace; the result is workspace().outputs.back().
  void forward(Workspace<T>& w) {
    if (!w.planned()) return run(w, 0, entries_.size());
    for (next_move_ = 0; w.plan().moves[next_move_].kind != Move::Kind::back; ++next_move_)
      make(w, w.plan().moves[next_move_]);
  }

  /// From the gradient by the last output to those of all parameters.
  void backward(Workspace<T>& w) {
    for (auto& slot : slots_) slot.dy = slot.x = {}, slot.used.rows.clear();
    std::fill(reached_.begin(), reached_.end(), false);
    if (!w.planned()) return run_back(w, 0, entries_.size());
    for (bool trained = true; trained && next_move_ < w.plan().moves.size(); ++next_move_) {
      const Move& move = w.plan().moves[next_move_];
      const Stage& stage = w.plan().stages[move.stage];
      if (move.kind != Move::Kind::back) {
        make(w, move);
        continue;
      }
      timed(move, [&] { run_back(w, stage.first, stage.last + 1); });
      trained = stage.first > first_trained_;
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

  /// Of the samples' values, not of lanes without a sample.
  double squared_norm(Panels<const T> p) const {
    T* const data = const_cast<T*>(p.data);
    const std::size_t whole = p.batch / p.lanes * p.stride();
    double squares = backend_->squared_norm(backend::Matrix<T>{data, 1, whole, whole});
    if (const std::size_t rest = p.batch % p.lanes; rest != 0)
      squares += backend_->squared_norm(backend::Matrix<T>{data + whole, p.features, rest, p.lanes});
    return squares;
  }

  /// The first layer whose output holds a NaN or an infinity.
  [[gnu::cold]] std::string first_overflow(Workspace<T>& w) const {
    if (w.planned()) return "a layer whose outputs are not kept; training without checkpointing tells which";
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const Panels<const T> y = w.output(i);
      std::vector<T> host(y.batch * y.features);
      backend_->scatter(y, host.data());
      for (const T v : host)
        if (!is_finite(v)) return describe(i);
    }
    return "the loss itself";
  }

 protected:
  /// Of what a layer draws.
  std::uint64_t seed_of(std::size_t layer) const { return seed_ + 0x9E3779B97F4A7C15 * (layer + 1); }
  /// One that reads the parameters of another one.
  [[gnu::cold]] Execution(const std::shared_ptr<B>& backend, const std::shared_ptr<ParameterStore<T, B>>& store,
                          std::uint64_t seed)
      : backend_(backend), store_(store), seed_(seed) {}

  using Layers<T, B>::entries_;
  using Step = typename Course<T, B>::Step;

  /// After a build.
  [[gnu::cold]] void prepare() {
    for (const bool training : {false, true}) courses_[training] = Course<T, B>(entries_, training);
    reached_.assign(entries_.size(), false);
    for (const bool training : {false, true}) workspaces_[training] = Workspace<T>(needs(training, 0));
    forget_plans();
    marked_ = std::any_of(entries_.begin(), entries_.end(), [](const Entry& e) { return e.checkpoint != 0; });
    slots_.clear();
    folded_slots_.assign(entries_.size(), {});
    for (const ParameterPlace& p : store_->places()) {
      Slot slot;
      slot.value = store_->matrix(store_->values(), p);
      slot.gradient = store_->matrix(store_->gradients(), p);
      slot.rate = p.rate;
      slot.by_rows = p.by_rows;
      slots_.push_back(slot);
    }
    first_trained_ = entries_.size();
    for (std::size_t i = entries_.size(); i-- > 0;)
      if (entries_[i].parameters != 0) first_trained_ = i;
  }

  std::shared_ptr<B> backend_;
  std::shared_ptr<ParameterStore<T, B>> store_;
  std::array<Course<T, B>, 2> courses_;  // in predictions, in training
  std::vector<Slot> slots_;
  Shape input_;
  std::uint64_t seed_;
  std::size_t place_ = 0;  // of the step, where sequences come step by step

 private:
  /// Layers begin to before end.
  void run(Workspace<T>& w, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
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

  void run_back(Workspace<T>& w, std::size_t begin, std::size_t end) {
    for (std::size_t i = end; i-- > std::max(begin, first_trained_);) {
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
      for (Slot& slot : pass.slots) {
        if (!slot.dy) continue;
        check_products(i, slot);
        if (!w.planned()) continue;
        backend_->multiply(gradient_product(w, slot));  // what it is of does not last
        slot.dy = {};
      }
    }
  }

  /// Runs a stage forward where its plan says.
  void make(Workspace<T>& w, const Move& move) {
    w.place(move);
    timed(move, [&] { run(w, w.plan().stages[move.stage].first, w.plan().stages[move.stage].last + 1); });
  }
  using Clock = std::chrono::steady_clock;
  static double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }
  /// The first steps within a number of bytes are timed, which makes the next plan better.
  bool timing() const { return memory_ != 0 && timed_steps_ < steps_to_time; }
  template <class F>
  void timed(const Move& move, const F& f) {
    if (!timing()) return f();
    const auto start = Clock::now();
    f();
    const double took = seconds(start, Clock::now());
    stages_took_ += took;
    if (stage_times_.size() <= move.stage) stage_times_.resize(move.stage + 1);
    double& least = stage_times_[move.stage][move.kind == Move::Kind::back];
    least = least == 0 ? took : std::min(least, took);
  }

  /// How the arena is used.
  struct Layout {
    std::size_t batch = 0, target = 0;
    bool training = false;
    std::size_t left = 0;   // of the memory that training may take
    bool measured = false;  // the times by which it was planned
    bool operator==(const Layout&) const = default;
  };
  [[gnu::cold]] void lay_out(Workspace<T>& w, const Layout& layout) {
    laid_out_.reset();
    w.set_target(layout.target);
    if (layout.training && may_checkpoint()) w.set_plan(known_plan(layout));
    const std::size_t size = w.lay_out(nullptr, layout.batch, lanes(layout.batch), layout.training);
    if (size > arena_.size()) {
      arena_ = {};  // first, so that the old and the new are never there together
      arena_ = {*backend_, size};
    }
    w.lay_out(arena_.data(), layout.batch, lanes(layout.batch), layout.training);
    laid_out_ = layout;
  }
  /// A plan is made once: epochs end with a batch of another size.
  [[gnu::cold]] std::shared_ptr<const CheckpointPlan> known_plan(const Layout& layout) {
    for (const auto& [known, plan] : plans_)
      if (known == layout) return plan;
    if (plans_.size() >= 4) plans_.erase(plans_.begin());
    arena_ = {};  // the plan is made in its memory
    plans_.emplace_back(layout, checkpoint_plan(layout.batch, layout.target));
    return plans_.back().second;
  }
  bool may_checkpoint() const { return memory_ != 0 || marked_; }
  [[gnu::cold]] void forget_plans() {
    plans_.clear(), stage_times_.clear(), laid_out_.reset();
    timed_steps_ = 0;
    arena_ = {};
  }

  /// Bytes that training takes beside the workspace.
  std::size_t memory_held() const {
    std::size_t bytes = (2 + store_->slots()) * store_->block_size() * sizeof(T);
    for (const ParameterPlace& p : store_->places()) bytes += p.form ? p.form->bytes() : 0;
    return bytes;
  }
  std::size_t memory_left() const { return memory_ - std::min(memory_, memory_held()); }

  /// Stages by the layers that they end with.
  [[gnu::cold]] std::vector<Stage> stages_of(const Workspace<T>& w, const std::vector<std::size_t>& ends) const {
    std::vector<Stage> stages;
    for (const std::size_t last : ends) {
      stages.push_back(w.stage(stages.empty() ? 0 : stages.back().last + 1, last));
      Stage& stage = stages.back();
      stage.forward = static_cast<double>(stage.out + stage.inside), stage.backward = 2 * stage.forward;
    }
    for (std::size_t s = 0; s < stages.size() && times_measured() && stage_times_.size() == stages.size(); ++s)
      stages[s].forward = stage_times_[s][0], stages[s].backward = stage_times_[s][1];
    return stages;
  }
  /// Of what users have marked: blocks, and layers in a row of which only the next one reads the one before.
  struct MarkedStages {
    std::vector<std::size_t> ends;
    std::vector<bool> marked;
  };
  [[gnu::cold]] MarkedStages marked_stages() const {
    MarkedStages result;
    std::size_t before = 0;  // the mark of the stage so far
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (courses_[1][i].passthrough) continue;
      const Wiring& wiring = courses_[1].wiring();
      const std::size_t mark = entries_[i].checkpoint;
      bool goes_on = !result.ends.empty() && mark == before;
      if (goes_on && mark == marked_layer)
        goes_on = wiring.sources(i) == std::vector<std::size_t>{result.ends.back()} &&
                  wiring.readers(result.ends.back()) == 1;
      if (!goes_on) result.ends.push_back(i), result.marked.push_back(mark != 0);
      result.ends.back() = i, before = mark;
    }
    return result;
  }

  std::size_t lanes(std::size_t batch) const { return B::template lanes<T>(batch); }

  /// Where a gradient by the output of a layer goes: nowhere, if nothing before it learns.
  layer::JoinedGradient<T> gradient_of(Workspace<T>& w, std::size_t layer) {
    if (layer == model_input || layer < first_trained_) return {};
    const bool add = reached_[layer];
    reached_[layer] = true;
    return {w.gradient(layer), add};
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
          {out, step.passthrough, step.normalised != no_layer, e.sums_products, course.wiring().sources(i),
           course.wiring().last_reader(i), std::move(kept),
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
        n.rows = std::max(n.rows, store_->places()[e.first_parameter + p].columns);
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
                           {store_->stamp(), w.stamp(i)},
                           batch_number_,
                           step.activation_moved,
                           step.moved_activation,
                           step.pool,
                           whole,
                           nullptr,
                           step.normalised != no_layer && !slots_of_layer(step.normalised)[0].frozen,
                           place_};
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
    const ParameterPlace& weight = store_->places()[entries_[i].first_parameter];
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
  static constexpr std::size_t steps_to_time = 3;

  std::array<Workspace<T>, 2> workspaces_;
  std::optional<Layout> laid_out_;
  backend::Memory<T, B> arena_;
  std::vector<Slot> folded_slots_;
  std::vector<bool> reached_;  // by a gradient, in this backward pass
  std::vector<Panels<const T>> joined_;
  std::vector<layer::JoinedGradient<T>> parted_;
  std::size_t first_trained_ = 0;
  std::uint64_t batch_number_ = 0;
  std::size_t memory_ = 0;
  std::vector<std::pair<Layout, std::shared_ptr<const CheckpointPlan>>> plans_;
  bool marked_ = false;                             // some layers, by the user
  std::vector<std::array<double, 2>> stage_times_;  // forward, backward
  std::size_t timed_steps_ = 0, next_move_ = 0;
  Clock::time_point batch_began_;
  double stages_took_ = 0, besides_ = 0;  // of a step: its stages, and the rest
};

}  // namespace tesla::inline TESLA_TARGET::model
