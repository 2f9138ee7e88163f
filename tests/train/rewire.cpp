// Rewiring: what is dropped and grown, against plain sets; RigL against dense gradients; SET, pruning, going on.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <io/temporary_folder.hpp>
#include <map>
#include <numeric>
#include <set>

namespace test_train_rewire {

using namespace tesla;
using namespace tesla::network::sparse;

namespace {

Sequential model_of(std::uint64_t seed = 0, double density = 0.1, sparse::Block block = {}) {
  Sequential model({.seed = seed});
  model.add_layer(SparseDense({.units = 60, .density = density, .block = block, .activation = relu, .name = "first"}))
      .add_layer(SparseDense({.units = 40, .density = density, .activation = relu, .name = "second"}))
      .add_layer(Dense({.units = 10}));
  model.compile(optim::Adam({.learning_rate = 2e-3}), loss::SparseCategoricalCrossEntropy(), {metric::Accuracy()});
  return model;
}

using Weights = std::map<std::pair<std::size_t, std::size_t>, float>;

Weights weights_of(Sequential& model, const std::string& layer) {
  const sparse::Pattern p = model.layer(layer).pattern();
  const Tensor<float> values = model.parameter(layer + ".weight").value();
  Weights result;
  for (std::size_t r = 0, k = 0; r < p.rows(); ++r)
    for (const std::uint32_t c : p.row(r)) result[{r, c}] = values[k++];
  return result;
}

}  // namespace

TEST_CASE("rewire: blocks dropped and grown, against sets", "[train][sparse]") {
  for (const sparse::Block& block : {sparse::Block{1, 1}, {4, 1}, {2, 3}})
    for (const std::uint64_t seed : {1, 2, 3}) {
      const sparse::Pattern p = sparse::Pattern::random(21, 17, {.density = 0.3, .block = block, .seed = seed});
      std::vector<double> values(p.live());
      const random::Stream random(seed);
      for (std::size_t k = 0; k < values.size(); ++k) values[k] = 2 * random.uniform(k) - 1;
      const std::vector<Scored> live = live_blocks(p, block, values);
      const std::uint64_t across = blocks_across(p, block), all = across * blocks_down(p, block);

      std::map<std::uint64_t, std::pair<double, int>> expected;
      for (std::size_t r = 0, k = 0; r < p.rows(); ++r)
        for (const std::uint32_t c : p.row(r)) {
          auto& [sum, count] = expected[r / block.rows * across + c / block.columns];
          sum += std::fabs(values[k++]), ++count;
        }
      REQUIRE(live.size() == expected.size());
      for (const Scored& s : live) {
        REQUIRE(expected.count(s.block) == 1);
        REQUIRE(s.score == Approx(expected[s.block].first / expected[s.block].second));
      }

      const std::vector<std::uint64_t> dropped = weakest(live, live.size() / 3);
      double strongest_dropped = 0, weakest_kept = 1;
      for (const Scored& s : live) {
        const bool gone = std::binary_search(dropped.begin(), dropped.end(), s.block);
        (gone ? strongest_dropped : weakest_kept) =
            gone ? std::max(strongest_dropped, s.score) : std::min(weakest_kept, s.score);
      }
      REQUIRE(strongest_dropped <= weakest_kept);

      const std::vector<std::uint64_t> grown = draw_dead(live, all, dropped.size(), random);
      REQUIRE(grown.size() == dropped.size());
      for (const std::uint64_t b : grown) REQUIRE((b < all && expected.count(b) == 0));
      REQUIRE(std::adjacent_find(grown.begin(), grown.end(), std::greater_equal<>()) == grown.end());
      REQUIRE(draw_dead(live, all, 100000, random).size() == all - live.size());

      const auto [next, from] = rewired(p, block, dropped, grown);
      REQUIRE(next.in_blocks(block));
      std::size_t fresh = 0;
      for (std::size_t r = 0, k = 0; r < next.rows(); ++r)
        for (const std::uint32_t c : next.row(r)) {
          const std::uint64_t number = r / block.rows * across + c / block.columns;
          const bool is_new = std::binary_search(grown.begin(), grown.end(), number);
          REQUIRE(!std::binary_search(dropped.begin(), dropped.end(), number));
          REQUIRE(is_new == (from[k] == ~std::uint32_t{0}));
          if (!is_new) {
            const auto old = p.row(r);
            REQUIRE(p.pointers()[r] <= from[k]);
            REQUIRE(old[from[k] - p.pointers()[r]] == c);
          }
          fresh += is_new ? 1 : 0, ++k;
        }
      if (block == sparse::Block()) REQUIRE((next.live() == p.live() && fresh == grown.size()));
    }
}

TEST_CASE("rewire: the best of many, with ties", "[train][sparse]") {
  const random::Stream random(4);
  for (const std::size_t count : {1, 7, 100, 5000}) {
    Best best(count);
    std::vector<Scored> all;
    for (std::uint64_t i = 0; i < 3000; ++i) {
      const double score = static_cast<double>(random.below(i, 50));
      best.offer(score, i);
      all.push_back({score, i});
    }
    std::sort(all.begin(), all.end());
    std::vector<std::uint64_t> expected;
    for (std::size_t i = 0; i < std::min<std::size_t>(count, all.size()); ++i) expected.push_back(all[i].block);
    std::sort(expected.begin(), expected.end());
    REQUIRE(best.take() == expected);
  }
}

TEST_CASE("RigL: grows by the dense gradient, drops by magnitude, begins anew at zero", "[train][sparse]") {
  // The first layer gets a gradient through a fixed second one; a dense layer of the same values tells it.
  for (const std::size_t rows : {1, 4}) {
    const std::size_t in = 30, units = 20, batch = 70;
    Tensor<float> x({batch, in}), y({batch, units});
    random::fill_normal(x, {.seed = 1});
    random::fill_normal(y, {.seed = 2});
    Sequential model(SparseDense({.units = units, .density = 0.2, .block = {rows, 1}, .name = "s"}));
    model.compile(optim::SGD({.learning_rate = 0.01, .momentum = 0.5}), loss::MeanSquaredError());
    model.build({in});
    model.train_step(x, y);  // so that there is momentum
    const Weights before = weights_of(model, "s");
    Sequential dense(Dense({.units = units, .name = "d"}));
    dense.compile(optim::SGD({.learning_rate = 1}), loss::MeanSquaredError());
    dense.build({in});
    Tensor<float> w({units, in});
    for (const auto& [at, value] : before) w(at.first, at.second) = value;
    dense.parameter("d.weight").assign(w);
    dense.parameter("d.bias").assign(model.parameter("s.bias").value());
    dense.train_step(x, y);
    const Tensor<float> after = dense.parameter("d.weight").value();

    const sparse::RigL rigl({.every = 2, .drop_fraction = 0.4, .until = 4});
    model.fit(x, y, {.epochs = 1, .batch_size = batch, .shuffle = false, .callbacks = {rigl}, .verbose = 0});
    REQUIRE(rigl.history().size() == 1);
    const sparse::Rewiring& done = rigl.history()[0];
    const std::size_t live_blocks = before.size() / rows;
    REQUIRE(done.step == 2);
    REQUIRE(done.dropped == done.grown);
    REQUIRE(done.grown ==
            static_cast<std::size_t>(0.2 * (1 + std::cos(3.14159265358979 / 2)) * static_cast<double>(live_blocks)));
    const Weights now = weights_of(model, "s");
    REQUIRE(now.size() == before.size());

    std::vector<std::pair<double, std::size_t>> gradients;  // of dead blocks
    for (std::size_t b = 0; b < units / rows; ++b)
      for (std::size_t c = 0; c < in; ++c) {
        if (before.count({b * rows, c}) != 0) continue;
        double sum = 0;
        for (std::size_t r = b * rows; r < (b + 1) * rows; ++r)
          sum += std::fabs(static_cast<double>(w(r, c)) - static_cast<double>(after(r, c)));
        gradients.push_back({-sum, b * in + c});
      }
    std::sort(gradients.begin(), gradients.end());
    for (std::size_t k = 0; k < done.grown; ++k) {
      const std::size_t b = gradients[k].second / in, c = gradients[k].second % in;
      for (std::size_t r = b * rows; r < (b + 1) * rows; ++r) {
        REQUIRE(now.count({r, c}) == 1);
        REQUIRE(now.at({r, c}) == 0);
      }
    }
    // Fresh state: the momentum of new weights is zero, that of old ones is not.
    auto& store = model.network().store();
    const Tensor<float> momentum = store.read(store.slot(0), store.places()[0]);
    std::size_t k = 0, still = 0;
    for (const auto& [at, value] : now) {
      REQUIRE((momentum[k] == 0) == (before.count(at) == 0));
      still += before.count(at), ++k;
    }
    REQUIRE(still == before.size() - done.dropped * rows);
  }
}

TEST_CASE("rewiring keeps counts, and the same bits come out however it is run", "[train][sparse]") {
  const auto digits = data::digits({.train = 600, .test = 100});
  const TemporaryFolder folder;
  const auto run = [&](std::vector<std::size_t> parts, bool through_a_file, int count) {
    set_threads(count);
    Sequential model = model_of(3, 0.1, {4, 1});
    model.build({784});
    const std::size_t first = model.layer("first").pattern().live(), second = model.layer("second").pattern().live();
    for (const std::size_t epochs : parts) {
      model.fit(digits.train,
                {.epochs = epochs,
                 .batch_size = 50,
                 .callbacks = {sparse::RigL({.every = 5, .until = 40}), sparse::SET({.every = 2, .seed = 1})},
                 .verbose = 0});
      REQUIRE(model.layer("first").pattern().live() == first);
      REQUIRE(model.layer("second").pattern().live() == second);
      REQUIRE(model.layer("first").pattern().in_blocks({4, 1}));
      if (!through_a_file) continue;
      model.save(folder.path("m.safetensors"));
      model = Sequential::load(folder.path("m.safetensors"));
    }
    set_threads(0);
    return model.predict(digits.test.x());
  };
  const Tensor<float> whole = run({4}, false, 1);
  for (const auto& [parts, file, count] : {std::tuple{std::vector<std::size_t>{4}, false, 3},
                                           {{1, 3}, false, 2},
                                           {{1, 3}, true, 2},
                                           {{2, 1, 1}, true, 1}}) {
    const Tensor<float> other = run(parts, file, count);
    REQUIRE(std::equal(whole.begin(), whole.end(), other.begin()));
  }
}

TEST_CASE("gradual pruning reaches its density and the model still learns", "[train][sparse]") {
  const auto digits = data::digits({.train = 2000, .test = 200});
  Sequential model = model_of(1, 1);
  const sparse::GradualPruning pruning({.density = 0.1, .every = 10});
  std::size_t before = ~std::size_t{0};
  const History history = model.fit(
      digits.train, {.epochs = 6, .batch_size = 50, .validation = digits.test, .callbacks = {pruning}, .verbose = 0});
  for (const sparse::Rewiring& r : pruning.history())
    if (r.layer == "first") {
      REQUIRE(r.live < before);
      REQUIRE(r.grown == 0);
      before = r.live;
    }
  REQUIRE(model.layer("first").pattern().live() == 4704);
  REQUIRE(model.layer("second").pattern().live() == 240);
  REQUIRE(model.parameter("first.weight").shape() == Shape{4704});
  REQUIRE(history["val_accuracy"].back() > 0.85);
  REQUIRE(model.summary_text().find("4704 of 47040") != std::string::npos);
}

TEST_CASE("prune: the largest stay, with their optimizer state, and training goes on", "[train][sparse]") {
  const auto digits = data::digits({.train = 500, .test = 100});
  for (const bool each : {false, true}) {
    Sequential model;
    model.add_layer(Dense({.units = 50, .activation = relu, .name = "a"})).add_layer(Dense({.units = 10, .name = "b"}));
    model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy());
    model.fit(digits.train, {.epochs = 2, .verbose = 0});
    auto& store = model.network().store();
    std::map<std::string, Tensor<float>> values, state;
    for (const auto& p : store.places())
      values.emplace(p.name, store.read(store.values(), p)), state.emplace(p.name, store.read(store.slot(1), p));
    const auto report = sparse::prune(model, {.density = 0.2, .each = each});
    REQUIRE(report.size() == 2);
    std::size_t live = 0;
    double least = 1e9, largest_dropped = 0;
    for (const sparse::Pruned& r : report) {
      live += r.live;
      if (each) REQUIRE(static_cast<double>(r.live) == Approx(0.2 * static_cast<double>(r.weights)).margin(1));
      const Tensor<float>& all = values.at(r.layer + ".weight");
      const Weights kept = weights_of(model, r.layer);
      if (each) least = 1e9, largest_dropped = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        const auto found = kept.find({i / all.shape()[1], i % all.shape()[1]});
        const double size = std::fabs(static_cast<double>(all[i]));
        if (found == kept.end()) {
          largest_dropped = std::max(largest_dropped, size);
          continue;
        }
        REQUIRE(found->second == all[i]);
        least = std::min(least, size);
      }
      if (each) REQUIRE(largest_dropped <= least);
      auto& now = model.network().store();
      for (const auto& p : now.places())
        if (p.name == r.layer + ".weight") {
          const Tensor<float> second = now.read(now.slot(1), p);
          std::size_t k = 0;
          for (const auto& [at, value] : kept) {
            static_cast<void>(value);
            REQUIRE(second[k++] == state.at(p.name)(at.first, at.second));
          }
        }
    }
    if (!each) REQUIRE(largest_dropped <= least);
    REQUIRE(static_cast<double>(live) == Approx(0.2 * (784 * 50 + 500)).margin(2));
    const double loss = model.evaluate(digits.train)["loss"];
    model.fit(digits.train, {.epochs = 2, .verbose = 0});
    REQUIRE(model.evaluate(digits.train)["loss"] < loss);
  }
}

TEST_CASE("rewiring: what is wrong is said", "[train][sparse][errors]") {
  using Catch::Contains;
  REQUIRE_THROWS_WITH(sparse::RigL({.every = 0}), Contains(".every"));
  REQUIRE_THROWS_WITH(sparse::RigL({.drop_fraction = 1.5}), Contains(".drop_fraction"));
  REQUIRE_THROWS_WITH(sparse::SET({.fraction = 0}), Contains(".fraction"));
  REQUIRE_THROWS_WITH(sparse::GradualPruning({.density = 2}), Contains(".density"));
  REQUIRE_THROWS_WITH(sparse::GradualPruning({.begin = 10, .until = 5}), Contains(".until"));
  const auto digits = data::digits({.train = 100, .test = 10});
  Sequential dense(Dense({.units = 10, .name = "d"}));
  dense.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy());
  REQUIRE_THROWS_WITH(sparse::prune(dense, {}), Contains("no weights yet"));
  REQUIRE_THROWS_WITH(dense.fit(digits.train, {.epochs = 1, .callbacks = {sparse::RigL({.every = 1})}, .verbose = 0}),
                      Contains("no SparseDense layers"));
  REQUIRE_THROWS_WITH(sparse::prune(dense, {.density = 0}), Contains(".density"));
  REQUIRE_THROWS_WITH(sparse::prune(dense, {.layers = {"x"}}), Contains("no layer named \"x\""));
  REQUIRE_THROWS_WITH(dense.layer("d").pattern(), Contains("no sparse weights"));
  REQUIRE_THROWS_WITH(dense.layer("x"), Contains("there is no \"x\""));
  Sequential tt(TensorTrain({.in = {28, 28}, .out = {5, 2}, .rank = 2, .name = "t"}));
  tt.build({784});
  REQUIRE_THROWS_WITH(sparse::prune(tt, {.layers = {"t"}}), Contains("cores of \"t\" stay dense"));
  REQUIRE_THROWS_WITH(sparse::prune(tt, {}), Contains("no Dense layers"));
  // All weights live: there is nothing to grow, and nothing is dropped.
  Sequential full(SparseDense({.units = 10, .density = 1, .name = "s"}));
  full.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy());
  full.fit(digits.train, {.epochs = 2, .callbacks = {sparse::RigL({.every = 1}), sparse::SET()}, .verbose = 0});
  REQUIRE(full.layer("s").pattern().live() == 7840);
}

}  // namespace test_train_rewire
