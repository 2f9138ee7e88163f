// Convolutions. Samples are lanes in the outputs and in the gradients of the inputs. The gradient of the filters sums
// over samples, so its lanes are channels: the image is transposed, some rows at a time. A single sample has filters,
// or channels, as lanes.
#pragma once

#include <tesla/backend/cpu/convolution_dots.hpp>

namespace tesla::inline TESLA_TARGET::backend::cpu {

/// The products of one convolution.
template <class T>
class Convolve {
 public:
  explicit Convolve(const Convolution& c) : c_(c) {}

  /// kept: filters in the form that forward reads, where that is another one; scratch: of either gradient.
  MemoryNeed memory(std::size_t batch, bool training) const {
    const std::size_t lanes = lanes_of<T>(batch);
    MemoryNeed need;
    if (lanes == 1 && !c_.depthwise()) need.kept = c_.taps() * c_.channels * padded(c_.group_filters());
    if (training) need.scratch = std::max(c_.depthwise() ? 0 : adjoint_size(lanes), filters_scratch(lanes));
    return need;
  }

  /// Fills what memory() keeps from the filters.
  void prepare(const Matrix<T>& filters, std::size_t batch, T* kept) const {
    if (lanes_of<T>(batch) != 1 || c_.depthwise()) return;
    const std::size_t depth = c_.depth(), row = padded(c_.group_filters()), each = c_.group_filters();
    for (std::size_t g = 0; g < c_.groups; ++g)
      for (std::size_t f = 0; f < each; ++f)
        for (std::size_t k = 0; k < depth; ++k) kept[(g * depth + k) * row + f] = filters.row(g * each + f)[k];
  }

  /// y = f(filters * x + bias); the bias may be null.
  void forward(const Matrix<T>& filters, const T* kept, Panels<const T> x, Panels<T> y, const T* bias,
               const Epilogue<T>& epilogue) const {
    detail::Correlation<T> p = detail::outputs_of(c_, filters, bias, epilogue);
    if (c_.depthwise())
      return detail::correlate_channels(p, static_cast<std::ptrdiff_t>(c_.columns.kernel), std::ptrdiff_t{1}, x, y);
    if (x.lanes == 1) p.weights = kept, p.a_row = padded(c_.group_filters());
    detail::correlate(p, x, y);
  }

  /// dx, the adjoint of forward without bias.
  void input(const Matrix<T>& filters, Panels<const T> dy, Panels<T> dx, T* scratch) const {
    for (std::size_t down = 0; down < std::min(c_.rows.stride, c_.rows.in); ++down)
      for (std::size_t along = 0; along < std::min(c_.columns.stride, c_.columns.in); ++along) {
        const AdjointReading rows = inputs_of(c_.rows, down), columns = inputs_of(c_.columns, along);
        detail::Correlation<T> p{rows.reading,
                                 columns.reading,
                                 c_.groups,
                                 c_.group_filters(),
                                 c_.group_channels(),
                                 c_.columns.out,
                                 c_.columns.in,
                                 c_.filters,
                                 c_.channels,
                                 scratch,
                                 0};
        if (c_.depthwise()) {
          const std::size_t last = rows.tap(0) * c_.columns.kernel + columns.tap(0);
          const bool none = rows.reading.taps == 0 || columns.reading.taps == 0;
          p.weights = filters.data + (none ? 0 : last), p.a_row = filters.stride;
          detail::correlate_channels(p, -static_cast<std::ptrdiff_t>(rows.tap_step * c_.columns.kernel),
                                     -static_cast<std::ptrdiff_t>(columns.tap_step), dy, dx);
          continue;
        }
        p.a_row = adjoint_row(dy.lanes, rows, columns);
        adjoint_filters(filters, rows, columns, dy.lanes, p.a_row, scratch);
        detail::correlate(p, dy, dx);
      }
  }

  /// The gradients of the filters and, unless it is null, of the bias.
  void filters(Panels<const T> dy, Panels<const T> x, const Matrix<T>& gradient, T* bias, T* scratch) const {
    std::fill_n(gradient.data, gradient.rows * gradient.stride, T(0));
    if (bias != nullptr) map_sum<math::Identity, T>({}, nullptr, Features<T>{bias, c_.filters}, dy);
    if (dy.batch == 0) return;
    if (dy.lanes == 1)
      filters_of_one(dy, x, gradient, scratch);
    else if (detail::by_dots<T>(c_))
      detail::filters_by_dots(c_, detail::WholeRows<T>{c_, dy}, x, gradient, scratch);
    else
      filters_by_tiles(dy, x, gradient, scratch);
  }

 private:
  static constexpr std::size_t w = width<T>;
  static constexpr std::size_t block = 2 * w;  // channels that are transposed beside each other

  static std::size_t padded(std::size_t n) { return round_up(n, w); }

  /// From row to row of the filters that the adjoint reads.
  std::size_t adjoint_row(std::size_t lanes, const AdjointReading& rows, const AdjointReading& columns) const {
    if (lanes == 1) return padded(c_.group_channels());
    return row_stride<T>(rows.reading.taps * columns.reading.taps * c_.group_filters());
  }
  std::size_t adjoint_size(std::size_t lanes) const {
    std::size_t most = 0;
    for (std::size_t down = 0; down < c_.rows.stride; ++down)
      for (std::size_t along = 0; along < c_.columns.stride; ++along) {
        const AdjointReading rows = inputs_of(c_.rows, down), columns = inputs_of(c_.columns, along);
        const std::size_t each = rows.reading.taps * columns.reading.taps * c_.filters;
        most = std::max(most, adjoint_row(lanes, rows, columns) * (lanes == 1 ? each : c_.channels));
      }
    return most;
  }
  /// The filters with the taps of one phase in reverse, and their channels in the place of their numbers.
  [[gnu::noinline]] void adjoint_filters(const Matrix<T>& filters, const AdjointReading& rows,
                                         const AdjointReading& columns, std::size_t lanes, std::size_t a_row,
                                         T* to) const {
    const std::size_t channels = c_.group_channels(), each = c_.group_filters(), along = columns.reading.taps;
    const std::size_t taps = rows.reading.taps * along;
    const auto source = [&](std::size_t filter, std::size_t tap) {
      return filters.row(filter) + (rows.tap(tap / along) * c_.columns.kernel + columns.tap(tap % along)) * channels;
    };
    if (taps == 0) return;
    if (lanes == 1) {
      parallel_for(c_.groups * taps, static_cast<double>(each * channels) / w, [&](std::size_t begin, std::size_t end) {
        for (std::size_t at = begin; at < end; ++at)
          for (std::size_t f = 0; f < each; ++f)
            std::copy_n(source(at / taps * each + f, at % taps), channels, to + (at * each + f) * a_row);
      });
      return;
    }
    parallel_for(c_.groups * taps, static_cast<double>(each * channels), [&](std::size_t begin, std::size_t end) {
      for (std::size_t at = begin; at < end; ++at) {
        const std::size_t group = at / taps, tap = at % taps;
        T* const corner = to + group * channels * a_row + tap * each;
        for (std::size_t f = 0; f < each; ++f) {
          const T* const from = source(group * each + f, tap);
          for (std::size_t channel = 0; channel < channels; ++channel) corner[channel * a_row + f] = from[channel];
        }
      }
    });
  }

  /// Rows of outputs whose inputs are transposed at a time, and the rows of inputs that they read at most.
  struct Chunk {
    std::size_t outputs, inputs;
  };
  Chunk chunk(std::size_t lanes) const {
    constexpr std::size_t most = std::size_t{1} << 20;  // bytes, about the second-level cache
    const std::size_t row = row_size(lanes) * sizeof(T), spread = (c_.rows.kernel - 1) * c_.rows.dilation + 1;
    const std::size_t fit = std::max(most / std::max<std::size_t>(row, 1), spread);
    const std::size_t outputs = std::min(c_.rows.out, (fit - spread) / c_.rows.stride + 1);
    return {outputs, std::min(c_.rows.in, (outputs - 1) * c_.rows.stride + spread)};
  }
  std::size_t blocks() const { return (c_.group_channels() + block - 1) / block * c_.groups; }
  /// One row of the image, transposed: [pixel][block of channels][sample][channel].
  std::size_t row_size(std::size_t lanes) const { return c_.columns.in * blocks() * lanes * block; }

  std::size_t filters_scratch(std::size_t lanes) const {
    if (lanes == 1)
      return c_.out_features() / c_.filters * padded(c_.group_filters()) * c_.groups +
             c_.depth() * padded(c_.group_filters()) * c_.groups;
    return detail::by_dots<T>(c_) ? detail::dot_sums<T>(c_) : chunk(lanes).inputs * row_size(lanes);
  }

  void filters_by_tiles(Panels<const T> dy, Panels<const T> x, const Matrix<T>& gradient, T* scratch) const {
    const Chunk chunk = this->chunk(x.lanes);
    const std::size_t rows = row_size(x.lanes), each = c_.group_filters(), channels = c_.group_channels();
    const std::size_t own = blocks() / c_.groups, vectors = channels > w ? 2 : 1;
    std::size_t tiles = 0;
    for (std::size_t f = 0; f < each; f += next_height<T>(each - f, vectors)) ++tiles;
    for (std::size_t panel = 0; panel < x.panels(); ++panel)
      for (std::size_t first = 0; first < c_.rows.out; first += chunk.outputs) {
        const Range outputs{first, std::min(c_.rows.out, first + chunk.outputs)};
        const std::size_t reach = (outputs.end - 1) * c_.rows.stride + (c_.rows.kernel - 1) * c_.rows.dilation + 1;
        const Range inputs{std::max(outputs.begin * c_.rows.stride, c_.rows.before) - c_.rows.before,
                           std::min(c_.rows.in, std::max(reach, c_.rows.before) - c_.rows.before)};
        if (inputs.begin >= inputs.end) continue;
        const std::size_t live = x.live(panel), lines = round_up(live, w);
        parallel_for(inputs.size() * c_.columns.in, nanoseconds::transposed * static_cast<double>(lines * c_.channels),
                     [&](std::size_t begin, std::size_t end) {
                       for (std::size_t at = begin; at < end; ++at)
                         transpose_pixel(x.panel(panel) + (inputs.begin * c_.columns.in + at) * x.features /
                                                              (c_.rows.in * c_.columns.in) * x.lanes,
                                         x.lanes, lines, scratch + at * blocks() * x.lanes * block);
                     });
        const double cost = nanoseconds::multiply_add<T> * static_cast<double>(outputs.size() * c_.columns.out * live) *
                            static_cast<double>(c_.depth() * each) / static_cast<double>(tiles);
        parallel_for(c_.groups * tiles, cost, [&](std::size_t begin, std::size_t end) {
          for (std::size_t task = begin; task < end; ++task) {
            const std::size_t group = task / tiles;
            std::size_t f = 0;
            for (std::size_t tile = 0; tile < task % tiles; ++tile) f += next_height<T>(each - f, vectors);
            const Range filters{group * each + f, group * each + f + next_height<T>(each - f, vectors)};
            for (std::size_t y = outputs.begin; y < outputs.end; ++y)
              for (std::size_t ky = 0; ky < c_.rows.kernel; ++ky) {
                if (const Range at = outputs_at(c_.rows, ky); y < at.begin || y >= at.end) continue;
                const std::size_t in = y * c_.rows.stride + ky * c_.rows.dilation - c_.rows.before - inputs.begin;
                for (std::size_t kx = 0; kx < c_.columns.kernel; ++kx)
                  for (std::size_t b = 0; b < own; ++b) {
                    const Range along = outputs_at(c_.columns, kx);
                    if (along.size() == 0) continue;
                    const std::size_t column =
                        along.begin * c_.columns.stride + kx * c_.columns.dilation - c_.columns.before;
                    gradient_tile(dy.panel(panel) + (y * c_.columns.out + along.begin) * c_.filters * dy.lanes,
                                  scratch + in * rows + (column * blocks() + group * own + b) * x.lanes * block,
                                  along.size(), live, x.lanes, filters,
                                  gradient.data + (ky * c_.columns.kernel + kx) * channels + b * block, gradient.stride,
                                  std::min(block, channels - b * block));
                  }
              }
          }
        });
      }
  }

  /// The channels of one pixel, from lanes of samples to blocks of channels.
  void transpose_pixel(const T* from, std::size_t lanes, std::size_t lines, T* to) const {
    const std::size_t channels = c_.group_channels();
    for (std::size_t group = 0; group < c_.groups; ++group)
      for (std::size_t first = 0; first < channels; first += block, to += lanes * block)
        for (std::size_t half = 0; half < 2; ++half)
          for (std::size_t line = 0; line < lines; line += w) {
            Vector<T> square[w];
            const std::size_t begin = first + half * w;
            const T* const rows = from + (group * channels + begin) * lanes + line;
            if (begin + w <= channels)
              unroll<w>([&](auto i) { square[i] = load(rows + i * lanes); });
            else
              unroll<w>([&](auto i) { square[i] = begin + i < channels ? load(rows + i * lanes) : Vector<T>(T(0)); });
            transpose<T>(square);
            unroll<w>([&](auto i) { store(to + (line + i) * block + half * w, square[i]); });
          }
  }

  /// gradient[filter][channel] += dy x^T for one tap and one block of channels, over a row of pixels.
  void gradient_tile(const T* dy, const T* x, std::size_t pixels, std::size_t live, std::size_t lanes, Range filters,
                     T* gradient, std::size_t stride, std::size_t channels) const {
    TileArguments<T> t{};
    t.segments = pixels, t.depth = t.last_depth = live;
    t.a_row = static_cast<std::ptrdiff_t>(lanes), t.a_depth = 1;
    t.a_segment = static_cast<std::ptrdiff_t>(c_.filters * lanes);
    t.b = x, t.b_depth = static_cast<std::ptrdiff_t>(block);
    t.b_segment = static_cast<std::ptrdiff_t>(c_.columns.stride * blocks() * lanes * block);
    const std::size_t vectors = channels > w ? 2 : 1;
    const bool whole = channels == vectors * w;
    alignas(cache_line) T buffer[max_rows(2) * block];
    for (std::size_t f = filters.begin; f < filters.end;) {
      const std::size_t height = next_height<T>(filters.end - f, vectors);
      T* const to = gradient + f * stride;
      t.a = dy + f * lanes;
      t.accumulate = whole;
      t.c = whole ? to : buffer, t.c_row = static_cast<std::ptrdiff_t>(whole ? stride : block);
      tile_function<T>(height, vectors)(t);
      if (!whole)
        for (std::size_t r = 0; r < height; ++r)
          for (std::size_t i = 0; i < channels; ++i) to[r * stride + i] += buffer[r * block + i];
      f += height;
    }
  }

  /// A single sample: filters are lanes, pixels the depth; summed as the transposed gradient.
  void filters_of_one(Panels<const T> dy, Panels<const T> x, const Matrix<T>& gradient, T* scratch) const {
    const std::size_t each = c_.group_filters(), channels = c_.group_channels(), row = padded(each);
    const std::size_t pixels = c_.rows.out * c_.columns.out, depth = c_.depth();
    for (std::size_t group = 0; group < c_.groups; ++group) {
      T* const up = scratch;  // of this group, padded
      T* const sums = up + pixels * row;
      for (std::size_t p = 0; p < pixels; ++p) {
        std::copy_n(dy.data + p * c_.filters + group * each, each, up + p * row);
        std::fill_n(up + p * row + each, row - each, T(0));
      }
      std::fill_n(sums, depth * row, T(0));
      for (std::size_t tap = 0; tap < c_.taps(); ++tap) {
        const std::size_t ky = tap / c_.columns.kernel, kx = tap % c_.columns.kernel;
        const Range down = outputs_at(c_.rows, ky), along = outputs_at(c_.columns, kx);
        if (down.size() == 0 || along.size() == 0) continue;
        const std::size_t in_row = down.begin * c_.rows.stride + ky * c_.rows.dilation - c_.rows.before;
        const std::size_t in_column = along.begin * c_.columns.stride + kx * c_.columns.dilation - c_.columns.before;
        Product<T> p;
        p.rows = channels, p.columns = row, p.segments = down.size(), p.depth = along.size();
        p.a = x.data + (in_row * c_.columns.in + in_column) * c_.channels + group * channels;
        p.a_row = 1, p.a_depth = static_cast<std::ptrdiff_t>(c_.columns.stride * c_.channels);
        p.a_segment = static_cast<std::ptrdiff_t>(c_.rows.stride * c_.columns.in * c_.channels);
        p.b = up + (down.begin * c_.columns.out + along.begin) * row;
        p.b_depth = static_cast<std::ptrdiff_t>(row);
        p.b_segment = static_cast<std::ptrdiff_t>(c_.columns.out * row);
        p.c = sums + tap * channels * row, p.c_row = static_cast<std::ptrdiff_t>(row);
        multiply(p, Epilogue<T>());
      }
      for (std::size_t f = 0; f < each; ++f)
        for (std::size_t k = 0; k < depth; ++k) gradient.row(group * each + f)[k] = sums[k * row + f];
    }
  }

  Convolution c_;
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
