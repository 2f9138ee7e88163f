// Memory: training allocates nothing after its first batch, and takes what it says.
#include <malloc.h>
#include <tesla/tesla.hpp>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdlib>
#include <model/support.hpp>
#include <new>
#include <string>
#include <vector>

using tesla::Dense;
using tesla::Sequential;

namespace {

std::atomic<std::size_t> allocations{0}, live{0}, peak{0};

// By aligned_alloc, so that what comes through malloc itself can be counted beside it.
void* allocate(std::size_t size, std::size_t alignment) noexcept {
  alignment = std::max(alignment, alignof(std::max_align_t));
  void* const p =
      std::aligned_alloc(alignment, std::max<std::size_t>((size + alignment - 1) / alignment, 1) * alignment);
  if (p == nullptr) return nullptr;
  ++allocations;
  const std::size_t now = live += ::malloc_usable_size(p);
  for (std::size_t known = peak; now > known && !peak.compare_exchange_weak(known, now);) {
  }
  return p;
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  if (void* const p = allocate(size, alignment)) return p;
  throw std::bad_alloc();
}

void release(void* p) noexcept {
  if (p == nullptr) return;
  live -= ::malloc_usable_size(p);
  std::free(p);
}

}  // namespace

// All forms of new and delete that may be replaced; they serve the other tests of this program too.
void* operator new(std::size_t n) { return allocate_or_throw(n, 0); }
void* operator new[](std::size_t n) { return allocate_or_throw(n, 0); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, 0); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, 0); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }

// What C libraries take counts too, where sanitizers do not need these names for themselves.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TESLA_TEST_SANITIZED
#endif
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(TESLA_TEST_SANITIZED)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* malloc(std::size_t n) {
  ++allocations;
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  ++allocations;
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  ++allocations;
  return __libc_realloc(p, n);
}
}
#endif

namespace {

/// The number of allocations that a call makes.
template <class F>
std::size_t allocations_of(const F& call) {
  const std::size_t before = allocations;
  call();
  return allocations - before;
}

/// Counts allocations from the end of one batch to the end of the next, and over the batches and the end of an epoch.
struct Counter {
  struct Counts {
    std::size_t at_batch = 0, at_epoch = 0;               // the counter then
    std::size_t between_batches = 0, between_epochs = 0;  // all that came after the first
  };
  Counts* counts;

  void on_batch_end(tesla::callback::Moment<Sequential>& m) {
    if (m.batch > 1) counts->between_batches += allocations - counts->at_batch;
    counts->at_batch = allocations;
  }
  void on_epoch_end(tesla::callback::Moment<Sequential>& m) {
    if (m.epoch > 1) counts->between_epochs += allocations - counts->at_epoch;
    counts->at_epoch = allocations;
  }
};

struct Case {
  const char* name;
  std::size_t samples, batch_size;
};
const Case cases[] = {{"batches divide the data", 96, 32},
                      {"a smaller last batch", 100, 32},
                      {"batches of one", 10, 1},
                      {"one batch", 20, 32},
                      {"a last batch of one", 65, 16}};

template <class Loss>
Sequential made(const Loss& loss, const tesla::Activation& activation = tesla::gelu) {
  Sequential model;
  model.add_layer(Dense({.units = 20, .activation = activation})).add_layer(Dense({.units = 3}));
  model.compile(tesla::optim::Adam({.clip_norm = 0.5}), loss,
                {tesla::metric::Accuracy(), tesla::metric::MeanAbsoluteError(), tesla::metric::TopK({.k = 2}),
                 tesla::metric::Precision(), tesla::metric::ConfusionMatrix(), tesla::metric::R2()});
  return model;
}

/// Models with the layers that add_layers adds, on inputs_of(samples) and three classes: they allocate nothing after
/// the first batch, and take what the model says with the inputs `large`.
template <class AddLayers, class InputsOf>
void check_layers(const AddLayers& add_layers, const InputsOf& inputs_of, const tesla::Tensor<float>& large) {
  using namespace tesla;
  for (const Case& c : cases) {
    INFO(c.name);
    const auto x = inputs_of(c.samples);
    const auto y = labels_below(3, c.samples, 2);
    Sequential model;
    add_layers(model);
    model.compile(optim::Adam({.clip_norm = 1}), loss::SparseCategoricalCrossEntropy(), {metric::Accuracy()});
    Counter::Counts counts;
    model.fit(
        x, y,
        {.epochs = 4, .batch_size = c.batch_size, .validation = {x, y}, .callbacks = {Counter{&counts}}, .verbose = 0});
    CHECK(counts.between_batches == 0);
    CHECK(counts.between_epochs == 0);
    std::vector<float> out(c.samples * 3);
    model.predict_into(x, out, {.batch_size = c.batch_size});
    CHECK(allocations_of([&] { model.predict_into(x, out, {.batch_size = c.batch_size}); }) == 0);
  }

  const auto y = labels_below(3, large.shape()[0], 2);
  const std::size_t before = live;
  Sequential model;
  add_layers(model);
  model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy());
  model.fit(large, y, {.epochs = 2, .batch_size = 64, .verbose = 0});
  const double taken = static_cast<double>(live - before), told = static_cast<double>(model.training_bytes(64));
  CHECK(taken > 0.95 * told);
  CHECK(taken < 1.05 * told);
}

/// Calls f with losses on labels and on rows, and with targets for them.
template <class F>
void with_losses(std::size_t samples, const F& f) {
  const auto labels = labels_below(3, samples, 2);
  const auto rows = normal_numbers({samples, 3}, 3);
  f(tesla::loss::SparseCategoricalCrossEntropy(), tesla::ArrayView(labels));
  f(tesla::loss::SparseCategoricalCrossEntropy({.from_logits = false}), tesla::ArrayView(labels));
  f(tesla::loss::MeanSquaredError(), tesla::ArrayView(rows));
}

}  // namespace

TEST_CASE("fit allocates nothing after its first batch", "[memory]") {
  for (const Case& c : cases) {
    const auto x = normal_numbers({c.samples, 12}, 1), other = normal_numbers({70, 12}, 4);
    const std::vector<float> weight(c.samples, 0.5F);
    with_losses(c.samples, [&](const auto& loss, const tesla::ArrayView& y) {
      for (const bool validation : {false, true}) {
        INFO(c.name << ", " << loss.kind << (validation ? ", with validation and weights" : ""));
        Sequential model = made(loss);
        Counter::Counts counts;
        Sequential::Options options{
            .epochs = 4, .batch_size = c.batch_size, .callbacks = {Counter{&counts}}, .verbose = 0};
        if (validation) options.validation = {x, y}, options.sample_weight = weight;
        model.fit(x, y, options);
        CHECK(counts.between_batches == 0);
        CHECK(counts.between_epochs == 0);

        // Without a callback too, more epochs take no more allocations, and another fit builds nothing new.
        options.callbacks.clear();
        const auto fit = [&](std::size_t epochs) {
          options.epochs = epochs;
          return allocations_of([&] { model.fit(x, y, options); });
        };
        const std::size_t two = fit(2);
        CHECK(fit(7) == two);
      }
    });
  }
}

TEST_CASE("a metric that keeps every sample allocates nothing after the first batch", "[memory]") {
  const auto x = normal_numbers({100, 12}, 1);
  std::vector<float> y(100);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(i % 2);
  const auto check = [&](std::size_t outputs, const auto& loss) {
    INFO(outputs << " outputs");
    Sequential model(Dense({.units = outputs}));
    model.compile(tesla::optim::SGD(), loss, {tesla::metric::RocAuc()});
    Counter::Counts counts;
    model.fit(x, y,
              {.epochs = 3, .batch_size = 32, .validation = {x, y}, .callbacks = {Counter{&counts}}, .verbose = 0});
    CHECK(counts.between_batches == 0);
    CHECK(counts.between_epochs == 0);
  };
  check(1, tesla::loss::BinaryCrossEntropy());
  check(3, tesla::loss::SparseCategoricalCrossEntropy());
}

TEST_CASE("accumulation, averages, groups, schedules and callbacks allocate nothing after the first epoch",
          "[memory]") {
  const auto x = normal_numbers({100, 12}, 1);
  const auto y = labels_below(3, 100, 2);
  const auto check = [&](auto optimizer) {
    INFO(optimizer.kind);
    optimizer.learning_rate = tesla::schedule::Piecewise({.rates = {0.01, 0.001}, .until = {7}});
    Sequential model;
    model.add_layer(Dense({.units = 20, .activation = tesla::tanh, .name = "first"})).add_layer(Dense({.units = 3}));
    model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy());
    model.group("first", {.rate = 0.5, .weight_decay = 0}).freeze("*.bias");
    Counter::Counts counts;
    model.fit(x, y,
              {.epochs = 5,
               .batch_size = 16,
               .callbacks = {tesla::callback::EarlyStopping({.patience = 9}), tesla::callback::ReduceOnPlateau(),
                             Counter{&counts}},
               .verbose = 0,
               .class_weight = {1, 2, 3},
               .accumulate = 2,
               .average = 0.9});
    CHECK(counts.between_epochs == 0);
  };
  check(tesla::optim::SGD({.momentum = 0.9}));
  check(tesla::optim::RMSprop());
  check(tesla::optim::Adagrad());
  check(tesla::optim::Lion());
  check(tesla::optim::LAMB());
}

TEST_CASE("a tensor-train allocates nothing once it has a plan for each size of batch", "[memory]") {
  for (const Case& c : cases) {
    INFO(c.name);
    const auto x = normal_numbers({c.samples, 12}, 1);
    const auto y = labels_below(4, c.samples, 2);
    Sequential model(tesla::TensorTrain({.in = {3, 4}, .out = {5, 4}, .rank = 3, .activation = tesla::gelu}),
                     tesla::TensorTrain({.in = {5, 4}, .out = {2, 2}, .rank = 2}));
    model.compile(tesla::optim::Adam(), tesla::loss::SparseCategoricalCrossEntropy());
    Counter::Counts counts;
    model.fit(x, y, {.epochs = 4, .batch_size = c.batch_size, .callbacks = {Counter{&counts}}, .verbose = 0});
    CHECK(counts.between_epochs == 0);
    std::vector<float> out(c.samples * 4);
    model.predict_into(x, out, {.batch_size = c.batch_size});
    CHECK(allocations_of([&] { model.predict_into(x, out, {.batch_size = c.batch_size}); }) == 0);
  }
}

TEST_CASE("sparse layers allocate nothing while they are not rewired, and take what the model says", "[memory]") {
  const auto x = normal_numbers({300, 784}, 1);
  const auto y = labels_below(10, 300, 2);
  const std::size_t before = live;
  Sequential model(tesla::SparseDense({.units = 3000, .density = 0.05, .activation = tesla::relu}),
                   tesla::SparseDense({.units = 2000, .density = 0.1, .block = {4, 1}, .activation = tesla::relu}),
                   tesla::SparseDense({.units = 10, .density = 0.5}));
  model.compile(tesla::optim::Adam(), tesla::loss::SparseCategoricalCrossEntropy());
  Counter::Counts counts;
  model.fit(x, y, {.epochs = 4, .batch_size = 100, .callbacks = {Counter{&counts}}, .verbose = 0});
  CHECK(counts.between_epochs == 0);
  const double taken = static_cast<double>(live - before), told = static_cast<double>(model.training_bytes(100));
  CHECK(taken > 0.95 * told);
  CHECK(taken < 1.05 * told);

  // Weights, gradients, the optimizer's two slots, indices of both orders: 20 bytes and a little.
  const auto weights = static_cast<double>(model.parameter("sparse_dense.weight").size());
  const auto bytes = [&](const std::string& name) {
    std::size_t sum = 0;
    for (const auto& p : model.network().store().places())
      if (p.name == name) sum = 4 * p.stride * sizeof(float) + p.form->bytes();
    return static_cast<double>(sum);
  };
  CHECK(bytes("sparse_dense.weight") < 22 * weights);
  CHECK(bytes("sparse_dense_1.weight") < 18 * static_cast<double>(model.parameter("sparse_dense_1.weight").size()));
}

TEST_CASE("layers of images allocate nothing after the first batch, and take what the model says", "[memory]") {
  using namespace tesla;
  const auto add_layers = [](Sequential& model) {
    model.add_layer(GaussianNoise()).add_layer(Conv2D({.filters = 8, .padding = same, .use_bias = false}));
    model.add_layer(BatchNorm()).add_layer(LeakyReLU()).add_layer(MaxPool2D());
    model.add_layer(Conv2D({.filters = 8, .stride = {2, 1}, .groups = 4, .activation = gelu}));
    model.add_layer(LayerNorm()).add_layer(RMSNorm()).add_layer(GroupNorm({.groups = 2}));
    model.add_layer(Conv2D({.filters = 8, .padding = same, .groups = 8, .activation = softmax}));
    model.add_layer(AveragePool2D({.stride = {1, 1}})).add_layer(Dropout({.rate = 0.2}));
    model.add_layer(GlobalMaxPool()).add_layer(Dense({.units = 3}));
  };
  check_layers(
      add_layers,
      [](std::size_t samples) {
        return normal_numbers({samples, 10, 10, 2}, 1);
      },
      normal_numbers({128, 28, 28, 2}, 1));
}

TEST_CASE("layers over sequences allocate nothing after the first batch, and take what the model says", "[memory]") {
  using namespace tesla;
  const auto add_layers = [](Sequential& model) {
    model.add_layer(Embedding({.tokens = 50, .units = 12, .padding_index = 0}));
    model.add_layer(LSTM({.units = 10, .return_sequences = true, .bidirectional = true, .masking = true}));
    model.add_layer(TimeDistributed(Dense({.units = 8, .activation = gelu})));
    model.add_layer(GRU({.units = 9, .return_sequences = true})).add_layer(SimpleRNN({.units = 3}));
  };
  const auto tokens = [](std::size_t samples, std::size_t length) {
    Tensor<float> x({samples, length});
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * i % 50);
    return x;
  };
  check_layers(
      add_layers, [&](std::size_t samples) { return tokens(samples, 6); }, tokens(128, 100));
  const auto add_train = [](Sequential& model) {
    model.add_layer(TensorTrainEmbedding({.tokens = 50, .units = 32, .rank = 8, .padding_index = 0}));
    model.add_layer(GRU({.units = 9, .return_sequences = true})).add_layer(SimpleRNN({.units = 3}));
  };
  check_layers(
      add_train, [&](std::size_t samples) { return tokens(samples, 6); }, tokens(128, 100));
}

TEST_CASE("recurrent layers with tensor-trains allocate nothing once they have their plans", "[memory]") {
  using namespace tesla;
  const auto add_layers = [](Sequential& model) {
    model.add_layer(TensorTrainLSTM({.units = 10,
                                     .in = {3, 4},
                                     .out = {5, 8},
                                     .rank = 3,
                                     .return_sequences = true,
                                     .bidirectional = true,
                                     .masking = true}));
    model.add_layer(TensorTrainGRU({.units = 9, .in = {4, 5}, .out = {3, 9}, .rank = 2, .return_sequences = true}));
    model.add_layer(TensorTrainSimpleRNN({.units = 3, .in = {3, 3}, .out = {1, 3}, .rank = 2}));
    model.compile(optim::Adam({.clip_norm = 1}), loss::SparseCategoricalCrossEntropy());
  };
  for (const Case& c : cases) {
    INFO(c.name);
    const auto x = normal_numbers({c.samples, 6, 12}, 1);
    const auto y = labels_below(3, c.samples, 2);
    Sequential model;
    add_layers(model);
    Counter::Counts counts;
    model.fit(x, y, {.epochs = 4, .batch_size = c.batch_size, .callbacks = {Counter{&counts}}, .verbose = 0});
    CHECK(counts.between_epochs == 0);
    std::vector<float> out(c.samples * 3);
    model.predict_into(x, out, {.batch_size = c.batch_size});
    CHECK(allocations_of([&] { model.predict_into(x, out, {.batch_size = c.batch_size}); }) == 0);
  }

  const auto x = normal_numbers({128, 100, 12}, 1);
  const auto y = labels_below(3, 128, 2);
  const auto train = [&] {
    const std::size_t before = live;
    Sequential model;
    add_layers(model);
    model.fit(x, y, {.epochs = 2, .batch_size = 64, .verbose = 0});
    return static_cast<double>(live - before) / static_cast<double>(model.training_bytes(64));
  };
  train();  // from now on the plans are there
  CHECK(train() == Approx(1).margin(0.05));
}

TEST_CASE("predict_into allocates nothing from its second call on", "[memory]") {
  for (const std::size_t samples : {1, 10, 256, 300}) {
    INFO(samples << " samples");
    const auto x = normal_numbers({samples, 12}, 1);
    std::vector<float> out(samples * 3);
    Sequential model = made(tesla::loss::MeanSquaredError());
    model.predict_into(x, out);
    CHECK(allocations_of([&] { model.predict_into(x, out); }) == 0);
    CHECK(allocations_of([&] { model.predict_into(x, out, {.batch_size = 7}); }) == 0);
    CHECK(allocations_of([&] {
            model.predict_into(tesla::ArrayView(x.data(), {1, 12}), std::span(out).first(3));
          }) == 0);
    CHECK(out != std::vector<float>(out.size()));
  }
}

TEST_CASE("repeated steps and evaluations take no more memory each time", "[memory]") {
  for (const std::size_t samples : {1, 10, 64, 600}) {
    const auto x = normal_numbers({samples, 12}, 1);
    with_losses(samples, [&](const auto& loss, const tesla::ArrayView& y) {
      INFO(samples << " samples, " << loss.kind);
      Sequential model = made(loss);
      model.train_step(x, y);
      model.evaluate(x, y);
      const std::size_t before = live;
      const std::size_t step = allocations_of([&] { model.train_step(x, y); });
      const std::size_t evaluation = allocations_of([&] { model.evaluate(x, y); });
      CHECK(live == before);
      // The checks and the results of a call; nothing by batch, layer or parameter.
      CHECK(step <= 12);
      CHECK(evaluation <= 30);
      CHECK(allocations_of([&] { model.train_step(x, y); }) == step);
      CHECK(allocations_of([&] { model.evaluate(x, y, {.batch_size = 10}); }) <= evaluation);
    });
  }
}

TEST_CASE("training a tensor-train takes the memory that the model says", "[memory]") {
  constexpr std::size_t samples = 256, batch_size = 128;
  const auto x = normal_numbers({samples, 1024}, 1);
  const auto y = labels_below(10, samples, 2);
  Sequential model(tesla::TensorTrain({.in = {4, 8, 8, 4}, .out = {4, 8, 8, 4}, .rank = 8}), Dense({.units = 10}));
  model.compile(tesla::optim::Adam(), tesla::loss::SparseCategoricalCrossEntropy());
  peak = live.load();
  const std::size_t before = live;
  model.fit(x, y, {.epochs = 2, .batch_size = batch_size, .verbose = 0});
  const double taken = static_cast<double>(peak - before), told = static_cast<double>(model.training_bytes(batch_size));
  CHECK(taken > 0.9 * told);
  CHECK(taken < 1.1 * told);
}

TEST_CASE("a loop of one's own allocates nothing after its first batch", "[memory]") {
  Sequential model{Dense({.units = 20, .activation = tesla::relu}), Dense({.units = 4})};
  model.build({10});
  const auto optimizer = tesla::optim::Adam(model.parameters());
  const auto x = normal_numbers({64, 10}, 1);
  const auto y = labels_below(4, 64, 2);
  const std::vector<float> weight(64, 0.5F);
  auto range = tesla::data::batches({x, y, weight}, {.size = 16});
  std::size_t seen = 0, before = 0;
  for (int pass = 0; pass < 2; ++pass)
    for (const auto& batch : range) {
      model.train_step(batch, tesla::loss::SparseCategoricalCrossEntropy(), optimizer);
      if (seen++ > 0) CHECK(allocations == before);
      before = allocations;
    }
  CHECK(seen == 8);
}

TEST_CASE("training takes the memory that the model says", "[memory]") {
  constexpr std::size_t samples = 256, batch_size = 128;
  const auto x = normal_numbers({samples, 784}, 1);
  const auto y = labels_below(10, samples, 2);
  const std::vector<std::vector<std::size_t>> networks{{300, 100, 10}, {1024, 1024, 10}};
  for (const auto& units : networks)
    for (const bool adam : {false, true}) {
      INFO("784-" << units[0] << '-' << units[1] << (adam ? ", Adam" : ", SGD"));
      const auto fit = [&](Sequential& model) {
        peak = live.load();
        const std::size_t before = live;
        model.fit(x, y, {.epochs = 2, .batch_size = batch_size, .verbose = 0});
        return static_cast<double>(peak - before);
      };
      Sequential model;
      for (const std::size_t n : units) model.add_layer(Dense({.units = n, .activation = tesla::relu}));
      if (adam)
        model.compile(tesla::optim::Adam(), tesla::loss::SparseCategoricalCrossEntropy());
      else
        model.compile(tesla::optim::SGD(), tesla::loss::SparseCategoricalCrossEntropy());
      const double taken = fit(model), told = static_cast<double>(model.training_bytes(batch_size));
      CHECK(taken > 0.95 * told);
      CHECK(taken < 1.1 * told);
      CHECK(fit(model) < 0.05 * told);
    }
}

TEST_CASE("training keeps to the bytes that compile was given", "[memory]") {
  using namespace tesla;
  const auto x = normal_numbers({200, 64}, 1);
  const auto y = labels_below(3, 200, 2);
  const auto made_with = [&](std::size_t memory) {
    Sequential model;
    for (int i = 0; i < 24; ++i) model.add_layer(Dense({.units = 64, .activation = gelu}));
    model.add_layer(Dense({.units = 3}));
    model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy(), {}, {.memory = memory});
    model.build({64});
    return model;
  };
  const std::size_t all = made_with(0).training_bytes(128);
  for (const std::size_t memory : {all - all / 16, all - all / 8, all - all / 4}) {
    INFO(memory << " of " << all << " bytes");
    const std::size_t before = live;
    Sequential model = made_with(memory);
    Counter::Counts counts;
    peak = live.load();
    model.fit(x, y,
              {.epochs = 6, .batch_size = 128, .validation = {x, y}, .callbacks = {Counter{&counts}}, .verbose = 0});
    // Beside the numbers there are layers, shapes, and plans with the table that they are found in.
    CHECK(peak - before <= memory + 200000);
    CHECK(live - before <= memory + 200000);
    CHECK(model.training_bytes(128) <= memory);
    Counter::Counts later;
    model.fit(x, y, {.epochs = 4, .batch_size = 128, .callbacks = {Counter{&later}}, .verbose = 0});
    CHECK(later.between_batches == 0);
    CHECK(later.between_epochs == 0);
  }
}

TEST_CASE("decoding allocates nothing after the first step", "[memory]") {
  using namespace tesla;
  for (const std::size_t sequences : std::vector<std::size_t>{1, 3, 20}) {
    Sequential model;
    model.add_layer(Embedding({.tokens = 9, .units = 8})).add_layer(Positions());
    model.add_layer(TransformerBlock({.features = 8, .heads = 2, .causal = true, .rotary = true}));
    model.add_layer(MultiHeadAttention({.heads = 2, .causal = true, .masking = true}));
    model.add_layer(TimeDistributed(Dense({.units = 9})));
    model.build({20});
    auto decoder = model.decoder(sequences);
    const Tensor<float> words({sequences, 1});
    std::vector<float> out(sequences * 9);
    decoder.decode_into(words, out);
    CHECK(allocations_of([&] {
            while (decoder.place() < decoder.length()) decoder.decode_into(words, out);
            decoder.restart();
            decoder.decode_into(words, out);
          }) == 0);
  }
}

TEST_CASE("labels a step: nothing is allocated after the first batch", "[memory][steps]") {
  using namespace tesla;
  constexpr std::size_t steps = 7, classes = 5;
  const auto check = [&](const auto& loss, bool with_ignored, std::size_t samples, std::size_t batch_size) {
    INFO(loss.kind << ", " << samples << " samples, batches of " << batch_size);
    const auto x = normal_numbers({samples, steps, 3}, 1);
    auto y = labels_below(classes, samples * steps, 2);
    for (std::size_t i = 0; with_ignored && i < y.size(); i += 4) y[i] = -1;
    const ArrayView labels = view(y, {samples, steps});
    const std::vector<float> weight(samples, 0.5F);
    Sequential model(TimeDistributed(Dense({.units = 9, .activation = relu})),
                     TimeDistributed(Dense({.units = classes})));
    model.compile(optim::Adam(), loss,
                  {metric::Accuracy(), metric::TopK({.k = 2}), metric::Perplexity(), metric::ConfusionMatrix()});
    Counter::Counts counts;
    Sequential::Options options{.epochs = 4,
                                .batch_size = batch_size,
                                .validation = {x, labels},
                                .sample_weight = weight,
                                .callbacks = {Counter{&counts}},
                                .verbose = 0,
                                .class_weight = std::vector<double>(classes, 2.0)};
    model.fit(x, labels, options);
    CHECK(counts.between_batches == 0);
    CHECK(counts.between_epochs == 0);

    // The same for steps of one's own, with a loss in each call.
    const optim::Adam adam(model.parameters(), {.learning_rate = 1e-3});
    const auto own = [&] { model.train_step({x, labels}, loss, adam); };
    own();
    const std::size_t before = allocations;
    for (int i = 0; i < 3; ++i) own();
    CHECK(allocations == before);
  };
  for (const auto& [samples, batch_size] : {std::pair<std::size_t, std::size_t>{48, 16}, {50, 16}, {5, 1}, {65, 32}}) {
    check(loss::SparseCategoricalCrossEntropy(), false, samples, batch_size);
    check(loss::SparseCategoricalCrossEntropy({.ignore_label = -1}), true, samples, batch_size);
    check(loss::SparseCategoricalCrossEntropy({.from_logits = false, .ignore_label = -1}), true, samples, batch_size);
    check(loss::Focal({.labels = true}), false, samples, batch_size);
  }
}
