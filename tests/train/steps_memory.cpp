// Labels for each step are brought into batches without taking memory, from the second batch on.
#include <model/support.hpp>
#include <tesla/tesla.hpp>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

// Sanitizers have their own new and delete.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TESLA_TEST_SANITIZED
#endif
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(TESLA_TEST_SANITIZED)

namespace test_train_steps_memory {
namespace {
std::atomic<std::size_t> allocations{0};

void* allocate(std::size_t size, std::size_t alignment) {
  ++allocations;
  void* const p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment + alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace
}  // namespace test_train_steps_memory

// The other forms of new and delete call these.
void* operator new(std::size_t n) { return test_train_steps_memory::allocate(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) {
  return test_train_steps_memory::allocate(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace test_train_steps_memory {

using namespace tesla;

namespace {

struct Counter {
  struct Counts {
    std::size_t at_batch = 0, at_epoch = 0, between_batches = 0, between_epochs = 0;
  };
  Counts* counts;

  void on_batch_end(callback::Moment<Sequential>& m) {
    if (m.batch > 1) counts->between_batches += allocations - counts->at_batch;
    counts->at_batch = allocations;
  }
  void on_epoch_end(callback::Moment<Sequential>& m) {
    if (m.epoch > 1) counts->between_epochs += allocations - counts->at_epoch;
    counts->at_epoch = allocations;
  }
};

}  // namespace

TEST_CASE("labels a step: nothing is allocated after the first batch", "[memory][steps]") {
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

}  // namespace test_train_steps_memory

#endif
