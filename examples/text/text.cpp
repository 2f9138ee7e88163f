// In which language a line is written, letter by letter: an embedding and gated recurrent units.
//
//   examples/text/run [--lines N] [--epochs N] [--threads N] [--seed N] ["a line to read"]...
#include "../command_line.hpp"
#include "sentences.hpp"

#include <tesla/tesla.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace {

struct Options {
  std::size_t lines_to_learn = 2000, epochs = 8;  // of each language
  int threads = 0;
  std::uint64_t seed = 0;
  std::vector<std::string> lines;
  bool help = false;
};

constexpr const char* usage =
    R"(Learns to tell five languages apart from lines of words, letter by letter, tests that on sentences it has not seen,
and says in which language the lines after the options are written: examples/text/run "where is the next hotel"

  --lines N    of each language to learn from (default: 2000)
  --epochs N   passes over them (default: 8)
  --threads N  threads, 0 for as many as the machine has (default: 0)
  --seed N     of the lines, the first weights and the shuffling (default: 0)
  --help       shows this

Ctrl-C ends the training after the current step and goes on to the test.
)";

Options parse(int count, char** arguments) {
  Options o;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--help") {
      o.help = true;
      return o;
    }
    if (!name.starts_with("--")) {
      o.lines.push_back(name);
      continue;
    }
    const std::string value = read_value({"--lines", "--epochs", "--threads", "--seed"}, i++, count, arguments);
    if (name == "--lines") o.lines_to_learn = read_number<std::size_t>(name, value, 1, 1'000'000);
    if (name == "--epochs") o.epochs = read_number<std::size_t>(name, value, 1, 10'000);
    if (name == "--threads") o.threads = read_number(name, value, 0, 1024);
    if (name == "--seed") o.seed = read_number<std::uint64_t>(name, value, 0, ~std::uint64_t{0});
  }
  return o;
}

constexpr std::size_t length = 64;  // letters that are read of a line
constexpr std::size_t tokens = 29;  // nothing, 26 letters, a space, and anything else

std::int32_t token_of(char c) {
  if (c >= 'a' && c <= 'z') return 1 + (c - 'a');
  if (c >= 'A' && c <= 'Z') return 1 + (c - 'A');
  return c == ' ' ? 27 : 28;
}

/// A row for each line: at most so many of its first letters, then 0 for nothing.
tesla::Tensor<std::int32_t> encode(const std::vector<std::string>& lines, std::size_t most = length) {
  tesla::Tensor<std::int32_t> rows({lines.size(), length});
  for (std::size_t i = 0; i < lines.size(); ++i)
    std::transform(lines[i].begin(), lines[i].begin() + static_cast<std::ptrdiff_t>(std::min(lines[i].size(), most)),
                   rows.data() + i * length, token_of);
  return rows;
}

tesla::Sequential new_model(const Options& options, std::size_t classes) {
  tesla::Sequential model({.seed = options.seed});
  model.add_layer(tesla::Input({length}))
      .add_layer(tesla::Embedding({.tokens = tokens, .units = 16, .padding_index = 0}))
      .add_layer(tesla::GRU({.units = 48, .masking = true}))  // where the embedding is zero the line is over
      .add_layer(tesla::Dropout({.rate = 0.2}))
      .add_layer(tesla::Dense({.units = classes}));
  // Much decay, as there are few words, which would otherwise be learned one by one.
  model.compile(tesla::optim::AdamW({.learning_rate = 5e-3, .weight_decay = 0.1, .clip_norm = 1}),
                tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  return model;
}

/// The most likely language of each line, and how sure that is.
void tell(tesla::Sequential& model, const std::vector<Language>& all, const std::vector<std::string>& lines) {
  const tesla::Tensor<float> logits = model.predict(encode(lines));
  const std::vector<std::size_t> best = tesla::argmax(logits);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    double sum = 0;  // of the softmax
    for (std::size_t k = 0; k < all.size(); ++k) sum += std::exp(logits(i, k) - logits(i, best[i]));
    std::printf("%-8s %3.0f %%  %s\n", all[best[i]].name, 100 / sum, lines[i].c_str());
  }
}

void run(const Options& options) {
  tesla::set_threads(options.threads);
  const std::vector<Language> all = languages();
  const Texts train = draw_words(all, options.lines_to_learn, options.seed);
  const Texts test = draw_sentences(all, 100, options.seed);
  std::printf("%zu lines to learn from, such as \"%s\"\n", train.lines.size(), train.lines[0].c_str());

  tesla::Sequential model = new_model(options, all.size());
  model.summary();
  model.fit(encode(train.lines), train.labels,
            {.epochs = options.epochs, .seed = options.seed, .stop_on_interrupt = true});

  std::printf("\naccuracy on %zu sentences that are none of them (guessing: %.2f)\n", test.lines.size(),
              1 / static_cast<double>(all.size()));
  for (const std::size_t letters : {4U, 8U, 16U, 32U, 64U})
    std::printf("  after %2zu letters  %.3f\n", letters,
                model.evaluate(encode(test.lines, letters), test.labels)["accuracy"]);
  std::printf("\nfor example\n");
  tell(model, all, {test.lines[0], test.lines[100], test.lines[200], test.lines[300], test.lines[400]});
  if (options.lines.empty()) return;
  std::printf("\nyour lines\n");
  tell(model, all, options.lines);
}

}  // namespace

int main(int count, char** arguments) {
  return run_program({"text", usage, "fewer --lines"}, count, arguments, parse, run);
}
