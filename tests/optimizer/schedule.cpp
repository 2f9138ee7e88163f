// Learning-rate schedules: PyTorch's numbers, what PyTorch does not have, and options out of range.
#include <reference/optimizers.hpp>
#include <tesla/optimizer/adam.hpp>
#include <tesla/optimizer/sgd.hpp>

#include <catch2/catch.hpp>
#include <functional>
#include <string>
#include <vector>

namespace test_optimizer_schedule {

namespace schedule = tesla::schedule;
using schedule::LearningRate;

namespace {

const double* wanted(const std::string& name) {
  for (const reference::ScheduleCase& c : reference::schedule_cases)
    if (c.name == name) return c.rates;
  FAIL("no schedule of the name " << name);
  return nullptr;
}

void check_rates(const std::string& name, const LearningRate& rate) {
  INFO(name);
  const double* const rates = wanted(name);
  for (std::size_t i = 0; i < reference::scheduled_steps; ++i) {
    INFO("step " << i + 1);
    CHECK(rate.at(i + 1) == Approx(rates[i]).epsilon(1e-12));
  }
}

void check_refused(const std::string& word, const std::function<void()>& call) {
  try {
    call();
    FAIL_CHECK("no exception for " << word);
  } catch (const tesla::UsageError& error) {
    CHECK_THAT(error.what(), Catch::Contains(word));
  }
}

}  // namespace

TEST_CASE("schedules are PyTorch's", "[schedule]") {
  check_rates("step", schedule::Step({.from = 0.2, .factor = 0.3, .every = 7}));
  check_rates("exponential", schedule::Exponential({.from = 0.2, .factor = 0.9, .every = 1}));
  check_rates("restarts", schedule::Cosine({.from = 0.2, .to = 0.02, .steps = 10, .restarts = 100}));
  check_rates("growing", schedule::Cosine({.from = 0.2, .steps = 6, .restarts = 3, .growth = 2}));
  check_rates("one cycle",
              schedule::OneCycle({.peak = 0.2, .steps = 40, .rise = 0.25, .start_divisor = 20, .end_divisor = 500}));
  check_rates("piecewise", schedule::Piecewise({.rates = {0.2, 0.02, 0.002}, .until = {5, 20}}));
  // PyTorch's comes back up after its end, this one stays.
  const LearningRate cosine = schedule::Cosine({.from = 0.2, .to = 0.02, .steps = 30});
  for (std::size_t i = 0; i <= 30; ++i) CHECK(cosine.at(i + 1) == Approx(wanted("cosine")[i]).epsilon(1e-12));
  for (const std::size_t step : {31U, 32U, 40U, 1000000U}) CHECK(cosine.at(step) == Approx(0.02).epsilon(1e-12));
}

TEST_CASE("schedules begin with a warm-up and end with a floor where wanted", "[schedule]") {
  const LearningRate step = schedule::Step({.from = 1, .factor = 0.5, .every = 2, .to = 0.2, .warm_up = 3});
  const std::vector<double> rates{0.25, 0.5, 0.75, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2};
  for (std::size_t i = 0; i < rates.size(); ++i) CHECK(step.at(i + 1) == Approx(rates[i]).epsilon(1e-12));
  const LearningRate smooth = schedule::Exponential({.from = 1, .factor = 0.25, .every = 2, .to = 0.1, .warm_up = 1});
  const std::vector<double> even{0.5, 1, 0.5, 0.25, 0.125, 0.1, 0.1};
  for (std::size_t i = 0; i < even.size(); ++i) CHECK(smooth.at(i + 1) == Approx(even[i]).epsilon(1e-12));
  const LearningRate cosine = schedule::Cosine({.from = 1, .to = 0.5, .steps = 4, .warm_up = 4, .restarts = 1});
  CHECK(cosine.at(2) == Approx(0.4));
  CHECK(cosine.at(5) == Approx(1));
  CHECK(cosine.at(7) == Approx(0.75));
  CHECK(cosine.at(9) == Approx(1));
  CHECK(cosine.at(13) == Approx(0.5));
  CHECK(cosine.at(1000) == Approx(0.5));
  CHECK(LearningRate(schedule::OneCycle({.peak = 1, .steps = 10})).at(500) == Approx(1 / 25e4));
  CHECK(LearningRate(schedule::OneCycle({.peak = 1, .steps = 1})).at(1) == Approx(1 / 25e4));
}

TEST_CASE("a learning rate is a number or a schedule", "[schedule]") {
  CHECK(LearningRate(0.25).constant());
  CHECK(LearningRate(1).at(1000) == 1);
  CHECK(LearningRate(0.5F).at(3) == 0.5);
  const tesla::optim::Adam adam({.learning_rate = schedule::Cosine({.from = 1e-3F, .steps = 1000})});
  CHECK_FALSE(adam.learning_rate.constant());
  CHECK(adam.learning_rate.at(1) == Approx(1e-3));
  tesla::optim::SGD sgd;
  CHECK(sgd.learning_rate.at(1) == 0.01);
  sgd.learning_rate = 0.5;
  CHECK(sgd.learning_rate.at(1) == 0.5);
}

TEST_CASE("options of schedules out of range are refused", "[schedule]") {
  check_refused("SGD: .learning_rate", [] { tesla::optim::SGD({.learning_rate = -1}); });
  check_refused("Step: .from", [] { schedule::Step({.from = -1, .every = 1}); });
  check_refused("Step: .factor", [] { schedule::Step({.factor = 1.5, .every = 1}); });
  check_refused("Step: .every", [] { schedule::Step({.from = 1}); });
  check_refused("Step: .to", [] { schedule::Step({.from = 0.1, .every = 1, .to = 0.2}); });
  check_refused("Exponential: .factor", [] { schedule::Exponential({.factor = 0, .every = 1}); });
  check_refused("Exponential: .every", [] { schedule::Exponential({.from = 1}); });
  check_refused("Cosine: .steps", [] { schedule::Cosine({.from = 1}); });
  check_refused("Cosine: .to", [] { schedule::Cosine({.to = -1, .steps = 1}); });
  check_refused("Cosine: .growth", [] { schedule::Cosine({.steps = 1, .growth = 0.5}); });
  check_refused("OneCycle: .peak", [] { schedule::OneCycle({.peak = -1, .steps = 5}); });
  check_refused("OneCycle: .steps", [] { schedule::OneCycle({.peak = 1}); });
  check_refused("OneCycle: .rise", [] { schedule::OneCycle({.steps = 5, .rise = 2}); });
  check_refused("OneCycle: .start_divisor", [] { schedule::OneCycle({.steps = 5, .start_divisor = 0}); });
  check_refused("Piecewise: .rates", [] { schedule::Piecewise({.rates = {1, -1}, .until = {3}}); });
  check_refused("one entry more", [] { schedule::Piecewise({.rates = {1, 2}, .until = {3, 4}}); });
  check_refused("have to rise", [] { schedule::Piecewise({.rates = {1, 2, 3}, .until = {3, 3}}); });
  check_refused("Cosine: .steps", [] { tesla::optim::SGD({.learning_rate = schedule::Cosine()}); });
}

}  // namespace test_optimizer_schedule
