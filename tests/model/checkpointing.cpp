// Checkpointing: plans against a search of all orders, training against training that keeps everything, bit for bit.
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <io/temporary_folder.hpp>
#include <map>
#include <model/support.hpp>
#include <queue>
#include <string>
#include <vector>

namespace test_model_checkpointing {

using namespace tesla;
using model::Checkpointing, model::CheckpointPlan, model::Move, model::Stage;

namespace {

/// What is there at some moment of a step: of each stage nothing (0), its output (1) or all (2), the stage whose output
/// is kept for no longer than the next move, and how many stages are still to go back.
struct Moment {
  std::vector<int> kept;
  int passing = -1;
  std::size_t left = 0;
  bool operator<(const Moment& o) const { return std::tie(kept, passing, left) < std::tie(o.kept, o.passing, o.left); }
};

/// The least time by trying all orders (Dijkstra's search) in which what is kept stays until its gradient is made, and
/// a stage is kept whole only with its input; infinity if there is none.
double least_time(const std::vector<Stage>& stages, std::size_t memory) {
  const std::size_t n = stages.size();
  std::map<Moment, double> best;
  std::priority_queue<std::pair<double, Moment>, std::vector<std::pair<double, Moment>>, std::greater<>> open;
  const auto reach = [&](double time, Moment m) {
    const auto [at, fresh] = best.emplace(m, time);
    if (!fresh && at->second <= time) return;
    at->second = time;
    open.emplace(time, std::move(m));
  };
  const auto size = [&](const Moment& m) {
    std::size_t total = 0;
    for (std::size_t s = 0; s < n; ++s)
      total += m.kept[s] == 0 ? 0 : stages[s].out + (m.kept[s] == 2 ? stages[s].inside : 0);
    return total;
  };
  reach(0, {std::vector<int>(n, 0), -1, n});
  while (!open.empty()) {
    const double time = open.top().first;
    const Moment m = open.top().second;
    open.pop();
    if (time > best[m]) continue;
    if (m.left == 0) return time;
    const auto there = [&](std::size_t s) { return m.kept[s] > 0 || m.passing == static_cast<int>(s); };
    for (std::size_t s = 0; s < m.left; ++s) {
      if (s > 0 && !there(s - 1)) continue;
      // The input is there until the move is made, the one that only passes too.
      std::size_t held = size(m);
      if (s > 0 && m.kept[s - 1] == 0) held += stages[s - 1].out;
      if (held + stages[s].out + stages[s].inside > memory || m.kept[s] != 0) continue;
      Moment next = m;
      next.passing = static_cast<int>(s);
      reach(time + stages[s].forward, next);
      next.passing = -1;
      next.kept[s] = 1;
      reach(time + stages[s].forward, next);
      if (s > 0 && m.kept[s - 1] == 0) continue;
      next.kept[s] = 2;
      reach(time + stages[s].forward, next);
    }
    const std::size_t last = m.left - 1;
    if (m.kept[last] == 2 && (last == 0 || there(last - 1))) {
      Moment next = m;
      next.kept[last] = 0, --next.left;
      if (next.passing >= static_cast<int>(last)) next.passing = -1;
      // Outputs alone are kept no longer than their stage has gone back.
      if (last > 0 && next.kept[last - 1] == 1) next.kept[last - 1] = 0;
      reach(time + stages[last].backward, next);
    }
  }
  return std::numeric_limits<double>::infinity();
}

/// Follows a plan with arrays for memory: no move finds its numbers overwritten, and all stages go back once, in order.
void check_plan(const CheckpointPlan& plan) {
  const auto& stages = plan.stages;
  std::vector<std::pair<int, char>> memory(plan.memory, {-1, ' '});
  std::vector<Move> places(stages.size(), Move{Move::Kind::back, 0});
  const auto write = [&](std::size_t at, std::size_t size, std::pair<int, char> what) {
    REQUIRE(at + size <= memory.size());
    std::fill_n(memory.begin() + static_cast<std::ptrdiff_t>(at), size, what);
  };
  const auto check = [&](std::size_t at, std::size_t size, std::pair<int, char> what) {
    const auto first = memory.begin() + static_cast<std::ptrdiff_t>(at);
    CHECK(std::all_of(first, first + static_cast<std::ptrdiff_t>(size), [&](const auto& m) { return m == what; }));
  };
  std::size_t left = stages.size();
  for (const Move& m : plan.moves) {
    const auto number = static_cast<int>(m.stage);
    if (m.stage > 0) check(places[m.stage - 1].out, stages[m.stage - 1].out, {number - 1, 'o'});
    if (m.kind == Move::Kind::back) {
      REQUIRE(m.stage == --left);
      check(places[m.stage].out, stages[m.stage].out, {number, 'o'});
      check(places[m.stage].inside, stages[m.stage].inside, {number, 'i'});
      continue;
    }
    places[m.stage] = m;
    write(m.out, stages[m.stage].out, {number, 'o'});
    write(m.inside, stages[m.stage].inside, {number, 'i'});
    check(m.out, stages[m.stage].out, {number, 'o'});
    if (m.stage > 0) check(places[m.stage - 1].out, stages[m.stage - 1].out, {number - 1, 'o'});
  }
  CHECK(left == 0);
}

Tensor<float> inputs(const Shape& shape) { return normal_numbers(shape, 1); }

/// Trains models that `add` adds layers to; `options` are compile's.
template <class Model, class Add, class X, class Y>
Model trained(const Add& add, const X& x, const Y& y, const CompileOptions& options) {
  Model model(SequentialOptions{3});
  add(model);
  model.compile(optim::Adam({.clip_norm = 1}), loss::SparseCategoricalCrossEntropy(), {metric::Accuracy()}, options);
  model.fit(x, y, {.epochs = 2, .batch_size = 16, .validation = {x, y}, .verbose = 0, .average = 0.5});
  model.compile(optim::SGD({.momentum = 0.9}), loss::SparseCategoricalCrossEntropy(), {}, options);
  model.fit(x, y, {.epochs = 1, .batch_size = 8, .verbose = 0, .accumulate = 2});
  return model;
}

/// The bytes without which training at a batch size is refused.
template <class Add>
std::size_t least_memory(const Add& add, const Shape& sample, std::size_t batch) {
  Sequential model(SequentialOptions{3});
  add(model);
  model.compile(optim::Adam({.clip_norm = 1}), loss::SparseCategoricalCrossEntropy(), {metric::Accuracy()},
                {.memory = 1});
  model.build(sample);
  model.network().store().keep_average(true);
  try {
    static_cast<void>(model.training_bytes(batch));
  } catch (const UsageError& e) {
    const std::string text = e.what();
    return std::strtoull(text.c_str() + text.find("the least is ") + 13, nullptr, 10);
  }
  return 0;
}

template <class Add>
void check_same_bits(const std::string& what, const Add& add, const Shape& sample, const Tensor<float>& x,
                     std::size_t classes) {
  const auto y = labels_below(classes, x.shape()[0], 2);
  Sequential plain = trained<Sequential>([&](auto& m) { add(m, false); }, x, y, {});
  const std::string wanted = parameter_bits(plain), predicted = bits(plain.predict(x));
  {
    INFO(what << ", marked");
    Sequential marked = trained<Sequential>([&](auto& m) { add(m, true); }, x, y, {});
    CHECK(parameter_bits(marked) == wanted);
    CHECK(bits(marked.predict(x)) == predicted);
  }
  const auto add_plain = [&](auto& m) { add(m, false); };
  const std::size_t least = least_memory(add_plain, sample, 16), most = plain.training_bytes(16) + 100000;
  REQUIRE(least > 0);
  for (const std::size_t memory : {least, least + (most - least) / 4, least + (most - least) / 2, most}) {
    INFO(what << ", memory " << memory);
    Sequential tight = trained<Sequential>(add_plain, x, y, {.memory = memory});
    CHECK(parameter_bits(tight) == wanted);
    CHECK(tight.training_bytes(16) <= memory);
    CHECK(tight.network().arena_size() * sizeof(float) <= memory);
  }
  INFO(what);
  Sequential refused(SequentialOptions{3});
  add(refused, false);
  refused.compile(optim::Adam({.clip_norm = 1}), loss::SparseCategoricalCrossEntropy(), {}, {.memory = least - 1});
  check_raises<UsageError>([&] { refused.fit(x, y, {.batch_size = 16, .verbose = 0, .average = 0.5}); },
                           {"compile's .memory", std::to_string(least), "batch size 16"});
}

}  // namespace

TEST_CASE("plans take no more time than any order of moves", "[checkpointing]") {
  const random::Stream random(1, 2);
  std::uint64_t draw = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<Stage> stages(1 + random.below(draw++, 5));
    std::size_t all = 0;
    for (Stage& s : stages) {
      s.out = 1 + random.below(draw++, 4), s.inside = random.below(draw++, 4);
      s.forward = 1 + static_cast<double>(random.below(draw++, 5)), s.backward = 2 * s.forward;
      all += s.out + s.inside;
    }
    const Checkpointing chain(stages);
    for (std::size_t memory = 1; memory <= all; ++memory) {
      INFO("round " << round << ", memory " << memory);
      const double wanted = least_time(stages, memory);
      if (memory < chain.least()) {
        CHECK(wanted == std::numeric_limits<double>::infinity());
        continue;
      }
      const CheckpointPlan plan = chain.plan(memory);
      CHECK(plan.time() == Approx(wanted));
      CHECK(plan.memory <= memory);
      check_plan(plan);
    }
  }
}

TEST_CASE("plans of long chains of odd sizes keep to their memory", "[checkpointing]") {
  const random::Stream random(3, 2);
  std::vector<Stage> stages(150);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    stages[i].out = 1000 + random.below(3 * i, 5001), stages[i].inside = random.below(3 * i + 1, 20001);
    stages[i].forward = 1 + static_cast<double>(random.below(3 * i + 2, 9)), stages[i].backward = 3;
  }
  const Checkpointing chain(stages);
  double before = std::numeric_limits<double>::infinity();
  for (const std::size_t memory : {chain.least(), chain.least() * 2, chain.least() * 4, chain.least() * 16}) {
    const CheckpointPlan plan = chain.plan(memory);
    CHECK(plan.memory <= memory);
    CHECK(plan.time() <= before);
    before = plan.time();
    check_plan(plan);
  }
  CHECK(Checkpointing({}).least() == 0);
}

TEST_CASE("64 equal stages within the memory of 9", "[checkpointing]") {
  std::vector<Stage> stages(64);
  for (Stage& s : stages) s.out = 10, s.inside = 10;
  const CheckpointPlan plan = Checkpointing(stages).plan(180);
  CHECK(plan.time() / plan.least_time() < 1.32);
  check_plan(plan);
}

TEST_CASE("marked stages keep their outputs alone", "[checkpointing]") {
  std::vector<Stage> stages(5);
  for (std::size_t i = 0; i < stages.size(); ++i) stages[i].out = 2 + i, stages[i].inside = 3 * i;
  for (unsigned marks = 0; marks < 32; ++marks) {
    INFO(marks);
    std::vector<bool> marked;
    std::size_t kept = 0, widest = 0;
    for (std::size_t i = 0; i < stages.size(); ++i) {
      marked.push_back((marks >> i & 1) != 0);
      kept += stages[i].out + (marked[i] ? 0 : stages[i].inside);
      if (marked[i]) widest = std::max(widest, stages[i].inside);
    }
    const CheckpointPlan plan = model::marked_plan(stages, marked);
    CHECK(plan.memory == kept + widest);
    check_plan(plan);
    for (std::size_t i = 0; i < stages.size(); ++i) CHECK(plan.runs(i) == (marked[i] && i != 4 ? 2 : 1));
  }
}

TEST_CASE("checkpointing changes no bit: dense layers", "[checkpointing]") {
  check_same_bits(
      "dense",
      [](auto& m, bool mark) {
        for (const std::size_t units : std::vector<std::size_t>{40, 70, 20, 33, 64})
          m.add_layer(Dense({.units = units, .activation = gelu, .checkpoint_gradients = mark && units != 20}))
              .add_layer(Dropout({.rate = 0.2}));
        m.add_layer(Dense({.units = 3}));
      },
      {12}, inputs({41, 12}), 3);
}

TEST_CASE("checkpointing changes no bit: images, norms and pooling", "[checkpointing]") {
  check_same_bits(
      "images",
      [](auto& m, bool mark) {
        m.add_layer(Conv2D({.filters = 6, .kernel = {3, 3}, .padding = same, .checkpoint_gradients = mark}));
        m.add_layer(BatchNorm({.checkpoint_gradients = mark})).add_layer(ReLU()).add_layer(MaxPool2D());
        Chain block(Conv2D({.filters = 6, .kernel = {3, 3}, .padding = same}), BatchNorm(), ReLU(),
                    Conv2D({.filters = 6, .kernel = {3, 3}, .padding = same}), BatchNorm());
        block.checkpoint_gradients = mark;
        m.add_layer(Parallel(sum, block, Conv2D({.filters = 6, .kernel = {1, 1}})));
        m.add_layer(Conv2D({.filters = 5, .kernel = {3, 3}, .activation = relu})).add_layer(MaxPool2D());
        m.add_layer(Flatten()).add_layer(Dense({.units = 4, .checkpoint_gradients = mark}));
      },
      {12, 12, 2}, inputs({37, 12, 12, 2}), 4);
}

TEST_CASE("checkpointing changes no bit: tensor-trains, sparse weights and residuals", "[checkpointing]") {
  check_same_bits(
      "compressed",
      [](auto& m, bool mark) {
        m
            .add_layer(TensorTrain(
                {.in = {4, 4}, .out = {6, 5}, .rank = 3, .activation = tesla::tanh, .checkpoint_gradients = mark}))
            .add_layer(SparseDense({.units = 40, .density = 0.3F, .activation = relu, .checkpoint_gradients = mark}))
            .add_layer(LayerNorm({.checkpoint_gradients = mark}));
        Chain inner(Dense({.units = 40, .activation = relu}), Residual(Dense({.units = 40}), GELU()));
        inner.checkpoint_gradients = mark;
        m.add_layer(Residual(inner, Dense({.units = 40})));
        m.add_layer(Dense({.units = 3}));
      },
      {16}, inputs({35, 16}), 3);
}

TEST_CASE("checkpointing changes no bit: sequences", "[checkpointing]") {
  Tensor<float> words({29, 10});
  const random::Stream random(5, 1);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<float>(random.below(i, 11));
  check_same_bits(
      "transformer",
      [](auto& m, bool mark) {
        m.add_layer(Embedding({.tokens = 11, .units = 8, .checkpoint_gradients = mark}));
        for (int i = 0; i < 3; ++i)
          m.add_layer(TransformerBlock(
              {.features = 8, .heads = 2, .causal = true, .rotary = i == 1, .checkpoint_gradients = mark}));
        m.add_layer(LSTM({.units = 5, .checkpoint_gradients = mark})).add_layer(Dense({.units = 3}));
      },
      {10}, words, 3);
}

TEST_CASE("frozen layers need no gradients within a budget", "[checkpointing]") {
  const auto x = inputs({24, 12});
  const auto y = labels_below(3, 24, 2);
  std::string wanted;
  for (const bool tight : {false, true}) {
    Sequential model(SequentialOptions{3});
    for (int i = 0; i < 6; ++i) model.add_layer(Dense({.units = 30, .activation = gelu}));
    model.add_layer(Dense({.units = 3}));
    model.build({12});
    model.freeze("dense").freeze("dense_1*").freeze("dense_2*").freeze("dense_4*");
    std::size_t memory = 0;
    if (tight) {
      const auto add = [](auto& m) {
        for (int i = 0; i < 6; ++i) m.add_layer(Dense({.units = 30, .activation = gelu}));
        m.add_layer(Dense({.units = 3}));
      };
      memory = least_memory(add, {12}, 16);
    }
    model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy(), {}, {.memory = memory});
    model.fit(x, y, {.epochs = 3, .batch_size = 16, .verbose = 0});
    if (!tight) wanted = parameter_bits(model);
    if (tight) CHECK(parameter_bits(model) == wanted);
  }
}

TEST_CASE("a budget and marks are kept in files", "[checkpointing]") {
  const TemporaryFolder folder;
  const auto x = inputs({20, 12});
  const auto y = labels_below(3, 20, 2);
  const auto add = [](auto& m) {
    for (int i = 0; i < 5; ++i) m.add_layer(Dense({.units = 30, .activation = gelu}));
    m.add_layer(Dense({.units = 3}));
  };
  const std::size_t least = least_memory(add, {12}, 16);
  Sequential model(SequentialOptions{3});
  add(model);
  model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy(), {}, {.memory = least});
  model.fit(x, y, {.batch_size = 16, .verbose = 0});
  model.save(folder.path("model"));
  Sequential loaded = Sequential::load(folder.path("model"));
  CHECK(loaded.network().memory() == least);
  CHECK(loaded.training_bytes(16) <= least);

  Sequential marked;
  Chain block(Dense({.units = 8, .activation = gelu}), Dense({.units = 8}));
  block.checkpoint_gradients = true;
  marked.add_layer(block).add_layer(block).add_layer(Dense({.units = 3, .checkpoint_gradients = true}));
  marked.build({12});
  marked.save(folder.path("marked"));
  Sequential again = Sequential::load(folder.path("marked"));
  CHECK(again.summary_text(16) == marked.summary_text(16));
  CHECK_THAT(again.summary_text(16), Catch::Contains("2 times"));
}

TEST_CASE("an overflow is an error with checkpointing, too", "[checkpointing]") {
  Sequential model;
  for (int i = 0; i < 4; ++i) model.add_layer(Dense({.units = 8, .activation = gelu, .checkpoint_gradients = true}));
  model.add_layer(Dense({.units = 3}));
  model.build({8});
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy());
  Tensor<float> x({4, 8});
  std::fill(x.begin(), x.end(), 3e38F);
  const auto y = labels_below(3, 4, 2);
  const std::string before = parameter_bits(model);
  check_raises<DataError>([&] { model.fit(x, y, {.verbose = 0}); }, {"the loss is", "not kept", "step before"});
  CHECK(parameter_bits(model) == before);
}

TEST_CASE("summaries show what is made again", "[checkpointing]") {
  Sequential model;
  for (int i = 0; i < 16; ++i) model.add_layer(Dense({.units = 64, .activation = gelu}));
  model.build({64});
  model.compile(optim::SGD(), loss::MeanSquaredError());
  const std::size_t all = model.training_bytes(64);
  CHECK_THAT(model.summary_text(64), !Catch::Contains("again"));
  model.compile(optim::SGD(), loss::MeanSquaredError(), {}, {.memory = all - 500000});
  CHECK_THAT(model.summary_text(64),
             Catch::Contains("some of them again; expected extra time") && Catch::Contains("by sizes"));
  const auto x = inputs({256, 64});
  model.fit(x, x, {.epochs = 1, .batch_size = 64, .verbose = 0});
  CHECK_THAT(model.summary_text(64), Catch::Contains("expected extra time") && !Catch::Contains("by sizes"));
}

}  // namespace test_model_checkpointing
