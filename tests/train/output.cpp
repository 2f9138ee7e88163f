// What fit() prints: nothing, plain lines, or a bar on a terminal.
#include <fcntl.h>
#include <unistd.h>
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <io/temporary_folder.hpp>
#include <iostream>
#include <iterator>
#include <model/support.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace test_train_output {

using tesla::Dense;
using tesla::Sequential;

namespace {

/// Standard output goes elsewhere for the length of a call.
void with_output_to(int descriptor, const std::function<void()>& call) {
  std::cout.flush();
  std::fflush(stdout);
  const int kept = ::dup(STDOUT_FILENO);
  REQUIRE(kept >= 0);
  REQUIRE(::dup2(descriptor, STDOUT_FILENO) >= 0);
  call();
  std::fflush(stdout);
  ::dup2(kept, STDOUT_FILENO);
  ::close(kept);
}

/// What a call prints when standard output is a file.
std::string printed(const std::function<void()>& call) {
  const TemporaryFolder folder;
  const int file = ::open(folder.path("output").c_str(), O_WRONLY | O_CREAT, 0600);
  REQUIRE(file >= 0);
  with_output_to(file, call);
  ::close(file);
  std::ifstream in(folder.path("output"), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// What a call prints when standard output is a terminal.
std::string printed_on_terminal(const std::function<void()>& call) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  REQUIRE(master >= 0);
  REQUIRE(::grantpt(master) == 0);
  REQUIRE(::unlockpt(master) == 0);
  const int terminal = ::open(::ptsname(master), O_RDWR | O_NOCTTY);
  REQUIRE(terminal >= 0);
  with_output_to(terminal, call);
  std::string result;
  char bytes[4096];
  for (ssize_t n = 0; (n = ::read(master, bytes, sizeof bytes)) > 0;) result.append(bytes, static_cast<std::size_t>(n));
  ::close(terminal);
  ::close(master);
  return result;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

const auto x = normal_numbers({25, 4}, 1);
const auto y = labels_below(3, 25, 2);

struct Raiser {
  void on_batch_end(tesla::callback::Moment<Sequential>&) { std::raise(SIGINT); }
};

struct Training {
  Sequential model;
  tesla::History history;

  Training() {
    model.add_layer(Dense({.units = 3}));
    model.compile(tesla::optim::SGD(), tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  }
  std::function<void()> fit(int verbose) {
    return [this, verbose] {
      history = model.fit(x, y, {.epochs = 3, .batch_size = 10, .validation = {x, y}, .verbose = verbose});
    };
  }
};

}  // namespace

TEST_CASE("a silent fit prints nothing", "[output]") {
  Training training;
  CHECK(printed(training.fit(0)).empty());
  CHECK(printed_on_terminal(training.fit(0)).empty());
  CHECK(printed([&] {
          training.model.evaluate(x, y);
          training.model.predict(x);
          training.model.train_step(x, y);
        }).empty());
}

TEST_CASE("a fit prints the machine and one plain line an epoch into a file", "[output]") {
  for (const int verbose : {1, 2}) {
    INFO("verbose " << verbose);
    Training training;
    const std::string text = printed(training.fit(verbose));
    INFO(text);
    CHECK(text.find('\033') == text.npos);
    CHECK(text.find('\r') == text.npos);
    CHECK(text.ends_with('\n'));
    const auto lines = lines_of(text);
    REQUIRE(lines.size() == 4);
    CHECK_THAT(lines[0], Catch::StartsWith("TESLA ") && Catch::Contains("vectors of") && Catch::Contains("thread"));
    for (std::size_t epoch = 0; epoch < 3; ++epoch) {
      CHECK_THAT(lines[epoch + 1], Catch::StartsWith(tesla::text("epoch ", epoch + 1, "/3 ")));
      for (const auto& [name, values] : training.history) {
        char score[64];
        std::snprintf(score, sizeof score, " %s %.4f ", name.c_str(), values[epoch]);
        CHECK_THAT(lines[epoch + 1], Catch::Contains(score));
      }
      CHECK_THAT(lines[epoch + 1], Catch::Contains("samples/s"));
    }
  }
}

TEST_CASE("a fit on a terminal writes over its bar, unless lines are wanted", "[output]") {
  Training training;
  const std::string bar = printed_on_terminal(training.fit(1));
  CHECK(std::count(bar.begin(), bar.end(), '\033') >= 3);
  CHECK_THAT(bar, Catch::Contains("\r\033[Kepoch 3/3  loss"));
  CHECK(lines_of(bar).size() == 4);
  const std::string lines = printed_on_terminal(training.fit(2));
  CHECK(lines.find('\033') == lines.npos);
  CHECK(lines_of(lines).size() == 4);
}

TEST_CASE("a fit that was interrupted says so", "[output]") {
  Training training;
  const auto fit = [&](int verbose) {
    return printed([&training, verbose] {
      training.model.fit(x, y, {.epochs = 3, .callbacks = {Raiser()}, .verbose = verbose, .stop_on_interrupt = true});
    });
  };
  CHECK_THAT(fit(1), Catch::Contains("Ctrl-C"));
  CHECK(fit(0).empty());
}

TEST_CASE("a summary is printed as it is", "[output]") {
  Training training;
  training.model.build({4});
  CHECK(printed([&] { training.model.summary(16); }) == training.model.summary_text(16));
}

}  // namespace test_train_output
