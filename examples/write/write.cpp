// Writes text, character by character: a small transformer that was shown some.
//
//   examples/write/run [--file PATH]... [--attention window|dense] [--epochs N] [--prompt TEXT] [--temperature T] ...
#include "../command_line.hpp"
#include "text.hpp"

#include <tesla/tesla.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace {

struct Options {
  std::vector<std::string> files;
  std::size_t length = 128, blocks = 3, features = 96, window = 32;
  bool dense = false;
  std::size_t epochs = 8, characters = 600;
  double temperature = 0.7;
  std::string prompt = "You may ";
  int threads = 0;
  std::uint64_t seed = 0;
  bool help = false;
};

constexpr const char* usage =
    R"(Learns to go on with a text, one character after the other, and then writes some of its own. It reads the licenses that
Debian keeps in /usr/share/common-licenses, or files of yours; a tenth of them is held out and tells how well it does.

  --file PATH        a text to read; may be given several times
  --length N         characters that it sees at a time (default: 128)
  --blocks N         blocks of the transformer (default: 3)
  --features N       numbers by which it knows a character, a multiple of 8 (default: 96)
  --attention KIND   window: characters read those just before them; dense: all before them (default: window)
  --window N         how many (default: 32)
  --epochs N         passes over the text (default: 8)
  --prompt TEXT      what its own text begins with (default: "You may ")
  --characters N     to write (default: 600)
  --temperature T    how freely: 0 is always the likeliest (default: 0.7)
  --threads N        threads, 0 for as many as the machine has (default: 0)
  --seed N           of the first weights, the shuffling and the writing (default: 0)
  --help             shows this

Ctrl-C ends the training after the current step and goes on to the writing.
)";

Options parse(int count, char** arguments) {
  Options o;
  for (int i = 1; i < count; i += 2) {
    const std::string name = arguments[i];
    if (name == "--help") {
      o.help = true;
      return o;
    }
    const std::string value =
        read_value({"--file", "--length", "--blocks", "--features", "--attention", "--window", "--epochs", "--prompt",
                    "--characters", "--temperature", "--threads", "--seed"},
                   i, count, arguments);
    const auto number = [&](std::size_t least, std::size_t most) { return read_number(name, value, least, most); };
    if (name == "--file") o.files.push_back(value);
    if (name == "--length") o.length = number(2, 4096);
    if (name == "--blocks") o.blocks = number(1, 100);
    if (name == "--features") o.features = number(8, 4096);
    if (name == "--features" && o.features % 8 != 0) throw BadOption("--features takes a multiple of 8, not " + value);
    if (name == "--attention" && value != "window" && value != "dense")
      throw BadOption("--attention takes window or dense, not \"" + value + "\"");
    if (name == "--attention") o.dense = value == "dense";
    if (name == "--window") o.window = number(1, 4096);
    if (name == "--epochs") o.epochs = number(1, 10'000);
    if (name == "--characters") o.characters = number(1, 1'000'000);
    if (name == "--temperature") o.temperature = read_number(name, value, 0.0, 100.0, "a number from 0 to 100");
    if (name == "--prompt") o.prompt = value;
    if (name == "--threads") o.threads = read_number(name, value, 0, 1024);
    if (name == "--seed") o.seed = read_number<std::uint64_t>(name, value, 0, ~std::uint64_t{0});
  }
  if (o.prompt.empty()) throw BadOption("--prompt takes a text of one character or more");
  return o;
}

constexpr std::size_t batch = 32;

tesla::Sequential new_model(const Options& options, std::size_t tokens, std::size_t sequences) {
  using namespace tesla;
  const attention::Pattern pattern = options.dense ? attention::dense() : attention::sliding_window(options.window);
  Sequential model({.seed = options.seed});
  model.add_layer(Input({options.length})).add_layer(Embedding({.tokens = tokens, .units = options.features}));
  for (std::size_t i = 0; i < options.blocks; ++i)
    model.add_layer(TransformerBlock(
        {.features = options.features, .heads = 4, .pattern = pattern, .causal = true, .rotary = true}));
  model.add_layer(LayerNorm()).add_layer(TimeDistributed(Dense({.units = tokens})));
  const std::size_t steps = options.epochs * ((sequences + batch - 1) / batch);
  model.compile(
      optim::AdamW(
          {.learning_rate = schedule::OneCycle({.peak = 4e-3, .steps = steps}), .weight_decay = 0.1, .clip_norm = 1}),
      loss::SparseCategoricalCrossEntropy({.ignore_label = Sequences::nothing}), {metric::Accuracy()});
  return model;
}

/// Reads tokens one at a time, and tells the model's outputs for what follows. Where the length of its sequences is
/// used up, it begins again with the later half.
class Reader {
 public:
  explicit Reader(tesla::Sequential& model) : decoder_(model.decoder()), outputs_(model.output_shape().back()) {}

  const std::vector<float>& read(std::int32_t token) {
    if (decoder_.place() == decoder_.length()) {
      decoder_.restart();
      for (std::size_t i = seen_.size() - decoder_.length() / 2; i < seen_.size(); ++i) step(seen_[i]);
    }
    seen_.push_back(token);
    step(token);
    return outputs_;
  }

 private:
  void step(std::int32_t token) {
    token_[0] = token;
    decoder_.decode_into(token_, outputs_);
  }

  tesla::Decoder<float, tesla::backend::Cpu> decoder_;
  tesla::Tensor<std::int32_t> token_{{1, 1}};
  std::vector<std::int32_t> seen_;
  std::vector<float> outputs_;
};

/// One of the tokens, each as likely as its softmax at a temperature; `chance` is a number from 0 to 1.
std::size_t draw(const std::vector<float>& outputs, double temperature, double chance) {
  const auto largest = std::max_element(outputs.begin(), outputs.end());
  if (temperature == 0) return static_cast<std::size_t>(largest - outputs.begin());
  std::vector<double> sums;
  for (const float output : outputs)
    sums.push_back((sums.empty() ? 0 : sums.back()) + std::exp(static_cast<double>(output - *largest) / temperature));
  const auto found = std::upper_bound(sums.begin(), sums.end() - 1, chance * sums.back());
  return static_cast<std::size_t>(found - sums.begin());
}

std::vector<std::int32_t> encode(const Alphabet& alphabet, const std::string& text) {
  std::vector<std::int32_t> result;
  for (const char c : text) {
    result.push_back(alphabet.token(c));
    if (result.back() < 0)
      throw BadOption("--prompt takes characters that occur in the text; some of \"" + text + "\" do not");
  }
  return result;
}

void run(const Options& options) {
  tesla::set_threads(options.threads);
  std::vector<std::string> texts;
  for (const std::string& path : options.files.empty() ? licenses() : options.files) texts.push_back(read_text(path));
  std::size_t size = 0;
  for (const std::string& text : texts) size += text.size();
  if (size < 1000)
    throw BadOption(texts.empty() ? "there are no licenses in /usr/share/common-licenses here; give it a text by --file"
                                  : "less than 1000 characters are too few to learn from; give it more by --file");
  const Alphabet alphabet(texts);
  const std::vector<std::int32_t> prompt = encode(alphabet, options.prompt);
  const Split split(texts, alphabet, options.length);
  std::printf("%zu texts of %zu characters, %zu different ones; %zu sequences of %zu to learn from, %zu held out\n",
              texts.size(), size, alphabet.size(), split.train.size(), options.length, split.held_out.size());

  tesla::Sequential model = new_model(options, alphabet.size(), split.train.size());
  const tesla::Tensor<std::int32_t> x = split.held_out.x(), y = split.held_out.y();
  model.summary(batch);
  model.fit(split.train.x(), split.train.y(),
            {.epochs = options.epochs,
             .batch_size = batch,
             .seed = options.seed,
             .validation = {x, y},
             .stop_on_interrupt = true});
  const tesla::Scores scores = model.evaluate(x, y);
  std::printf("\nheld out: a loss of %.3f a character, %.2f bits; %.0f %% were the likeliest\n", scores["loss"],
              scores["loss"] / std::log(2), 100 * scores["accuracy"]);

  std::printf("\n%s", options.prompt.c_str());
  const tesla::random::Stream chances(options.seed, 1);
  Reader reader(model);
  const std::vector<float>* outputs = nullptr;
  for (const std::int32_t token : prompt) outputs = &reader.read(token);
  for (std::size_t i = 0; i < options.characters; ++i) {
    const std::size_t token = draw(*outputs, options.temperature, chances.uniform(i));
    std::putchar(alphabet.character(token));
    std::fflush(stdout);
    outputs = &reader.read(static_cast<std::int32_t>(token));
  }
  std::printf("\n");
}

}  // namespace

int main(int count, char** arguments) {
  return run_program({"write", usage, "fewer --features"}, count, arguments, parse, run);
}
