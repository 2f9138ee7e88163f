// A large matrix as an unfolding, without a permuted copy of it: a few columns of the unfolding at a time are brought
// together in a panel.
#pragma once

#include <tesla/core/memory.hpp>
#include <tesla/core/parallel.hpp>
#include <tesla/network/tensor_train/linear_algebra.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::detail {

// Vectors as wide as registers, and how many rows of each of two blocks are multiplied at a time such that all sums
// stay in registers.
#if defined(__AVX512F__)
inline constexpr std::size_t vector_bytes = 64, tile = 4;
#elif defined(__AVX__)
inline constexpr std::size_t vector_bytes = 32, tile = 3;
#elif defined(__ARM_NEON)
inline constexpr std::size_t vector_bytes = 16, tile = 4;
#else
inline constexpr std::size_t vector_bytes = 16, tile = 3;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(vector_bytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
inline constexpr std::size_t lanes = vector_bytes / sizeof(T);

/// By reference: compilers warn of vectors as results, whose way back depends on the instruction set.
template <class T>
void load(const T* from, Vector<T>& to) {
  std::memcpy(&to, from, sizeof to);
}

/// A row-major matrix, its rows numbered by (left_out, middle_out, right_out) and its columns by (left_in, middle_in,
/// right_in). Two unfoldings of it matter: (left_out, left_in) against the rest, and (right_out, right_in) against the
/// rest. An end that is of no interest has size 1.
struct Ends {
  std::size_t left_out = 1, left_in = 1, middle_out = 1, middle_in = 1, right_out = 1, right_in = 1;

  std::size_t left() const { return left_out * left_in; }
  std::size_t middle() const { return middle_out * middle_in; }
  std::size_t right() const { return right_out * right_in; }
  std::size_t size() const { return left() * middle() * right(); }
  std::size_t columns() const { return left_in * middle_in * right_in; }
  /// The same matrix with fewer, longer runs of the middle.
  Ends merged() const {
    if (left_in != 1 || right() != 1) return *this;
    return {left_out, 1, 1, middle(), 1, 1};
  }
};

/// Some of the middle entries: [left][right][width], the ends padded with zeros.
template <class T>
struct Panel {
  std::size_t left = 0, right = 0, width = 0;
  Scratch<T> values;

  Panel(std::size_t l, std::size_t r, std::size_t w) : left(l), right(r), width(w), values(l * r * w) {
    std::fill_n(values.data(), values.size(), T(0));
  }
  T* row(std::size_t l, std::size_t r) const { return values.data() + (l * right + r) * width; }
};

/// to[c][k] = from[k][c]. A fixed number of columns lets the compiler shuffle vectors.
template <std::size_t fixed_columns, class T, class P>
void copy_transposed(const T* __restrict from, P* __restrict to, std::size_t count, std::size_t columns,
                     std::size_t stride) {
  if constexpr (fixed_columns != 0) columns = fixed_columns;
  for (std::size_t k = 0; k < count; ++k)
#pragma GCC unroll 8
    for (std::size_t c = 0; c < columns; ++c) to[c * stride + k] = static_cast<P>(from[k * columns + c]);
}

/// Where a run of middle entries begins.
template <class T>
const T* start(const T* x, const Ends& e, std::size_t left, std::size_t right_out, std::size_t middle) {
  const std::size_t row = (left / e.left_in * e.middle_out + middle / e.middle_in) * e.right_out + right_out;
  return x + row * e.columns() + (left % e.left_in * e.middle_in + middle % e.middle_in) * e.right_in;
}

/// Fills a panel with the middle entries [at, at + count), and zeros beyond them.
template <class T, class P>
void fill(const Panel<P>& panel, const T* x, const Ends& e, std::size_t at, std::size_t count) {
  for (std::size_t done = 0, run = 0; done < count; done += run) {
    run = std::min(count - done, e.middle_in - (at + done) % e.middle_in);
    for (std::size_t l = 0; l < e.left(); ++l)
      for (std::size_t r = 0; r < e.right_out; ++r) {
        const T* const from = start(x, e, l, r, at + done);
        P* const to = panel.row(l, r * e.right_in) + done;
        switch (e.right_in) {
          case 1:
            copy_transposed<1>(from, to, run, 1, panel.width);
            break;
          case 2:
            copy_transposed<2>(from, to, run, 2, panel.width);
            break;
          case 4:
            copy_transposed<4>(from, to, run, 4, panel.width);
            break;
          case 8:
            copy_transposed<8>(from, to, run, 8, panel.width);
            break;
          default:
            copy_transposed<0>(from, to, run, e.right_in, panel.width);
        }
      }
  }
  if (count < panel.width)
    for (std::size_t i = 0; i < panel.left * panel.right; ++i)
      std::fill(panel.values.data() + i * panel.width + count, panel.values.data() + (i + 1) * panel.width, P(0));
}

/// Asks for what the panel at `at` will be filled from, if there is one, in `steps` steps between pieces of other work:
/// processors don't see ahead in so many runs at once.
template <class T>
class Ahead {
 public:
  Ahead(const T* x, const Ends& e, std::size_t at, std::size_t width, std::size_t steps)
      : x_(x),
        e_(e),
        at_(at),
        values_(std::min(width, e.middle_in - at % e.middle_in) * e.right_in),
        runs_(at < e.middle() ? e.left() * e.right_out : 0),
        runs_a_step_(runs_ / std::max<std::size_t>(steps, 1) + 1) {}

  void step() {
    for (const std::size_t last = std::min(next_ + runs_a_step_, runs_); next_ < last; ++next_) {
      const T* const from = start(x_, e_, next_ / e_.right_out, next_ % e_.right_out, at_);
      for (std::size_t k = 0; k < values_; k += cache_line / sizeof(T)) __builtin_prefetch(from + k, 0, 2);
    }
  }

 private:
  const T* x_;
  const Ends& e_;
  std::size_t at_, values_, runs_, runs_a_step_, next_ = 0;
};

/// The middle, cut into panels of `width` entries: of about `panel_size` numbers, with a multiple of `unit` entries.
struct Cut {
  std::size_t width, panels;

  Cut(const Ends& e, std::size_t panel_size, std::size_t unit) {
    const std::size_t fits = std::max(panel_size / (e.left() * e.right()), unit) / unit * unit;
    width = std::min(fits, round_up(e.middle(), unit));
    panels = (e.middle() + width - 1) / width;
  }
};

/// A matrix as a factor from the left of panels: [group of four rows][column][row in the group], zeros after the last.
template <class T>
struct Factor {
  static constexpr std::size_t group = 4, unit = 2 * lanes<T>;
  std::size_t rows = 0, columns = 0;
  std::vector<T> values;

  explicit Factor(const Dense& m) : rows(round_up(m.rows, group)), columns(m.columns), values(rows * columns) {
    for (std::size_t r = 0; r < m.rows; ++r)
      for (std::size_t c = 0; c < columns; ++c)
        values[(r / group * columns + c) * group + r % group] = static_cast<T>(m(r, c));
  }

  /// to = this a, for rows of n values that follow each other; n is a multiple of the unit.
  void multiply(const T* a, std::size_t n, T* to) const {
    for (std::size_t k = 0; k < n; k += unit)
      for (std::size_t r = 0; r < rows; r += group) {
        const T* factors = values.data() + r * columns;
        Vector<T> sums[group][2] = {};
        for (std::size_t c = 0; c < columns; ++c, factors += group) {
          Vector<T> low, high;
          load(a + c * n + k, low);
          load(a + c * n + k + lanes<T>, high);
#pragma GCC unroll 4
          for (std::size_t g = 0; g < group; ++g) {
            sums[g][0] += low * factors[g];
            sums[g][1] += high * factors[g];
          }
        }
#pragma GCC unroll 4
        for (std::size_t g = 0; g < group; ++g) std::memcpy(to + (r + g) * n + k, sums[g], sizeof sums[g]);
      }
  }
};

/// to[left][middle_out][right][middle_in] = panel[left][right], for the middle entries [at, at + count).
template <class T>
void put(const Panel<T>& panel, const Ends& e, std::size_t at, std::size_t count, std::size_t lefts, std::size_t rights,
         T* to) {
  for (std::size_t done = 0, run = 0; done < count; done += run) {
    const std::size_t out = (at + done) / e.middle_in, in = (at + done) % e.middle_in;
    run = std::min(count - done, e.middle_in - in);
    for (std::size_t l = 0; l < lefts; ++l)
      for (std::size_t r = 0; r < rights; ++r)
        std::copy_n(panel.row(l, r) + done, run, to + ((l * e.middle_out + out) * rights + r) * e.middle_in + in);
  }
}

/// The matrix in the directions that the rows of `left` and of `right` give (empty: that end has size 1): rows (left,
/// middle_out, right), columns middle_in.
template <class T>
Scratch<T> project(const T* x, const Ends& ends, const Dense& left, const Dense& right) {
  const Ends e = ends.merged();
  const std::size_t lefts = std::max<std::size_t>(left.rows, 1), rights = std::max<std::size_t>(right.rows, 1);
  const Factor<T> from_left(left), from_right(right);
  const Cut cut(e, 8192, Factor<T>::unit);
  Scratch<T> result(lefts * rights * e.middle());
  const double products = static_cast<double>(rights * e.size() + lefts * rights * e.left() * e.middle());
  parallel_for(cut.panels, 0.05 * products / static_cast<double>(cut.panels), [&](std::size_t begin, std::size_t end) {
    const std::size_t width = cut.width;
    const Panel<T> panel(e.left(), e.right(), width), halfway(right.rows > 0 ? e.left() : 0, from_right.rows, width),
        projected(from_left.rows, std::max<std::size_t>(from_right.rows, 1), width);
    for (std::size_t at = begin * width; at < std::min(end * width, e.middle()); at += width) {
      const std::size_t count = std::min(width, e.middle() - at);
      fill(panel, x, e, at, count);
      Ahead<T> ahead(x, e, at + width, width, e.left());
      const Panel<T>* done = &panel;
      if (right.rows > 0) {
        for (std::size_t l = 0; l < e.left(); ++l) {
          ahead.step();
          from_right.multiply(done->row(l, 0), width, halfway.row(l, 0));
        }
        done = &halfway;
      }
      if (left.rows > 0) {
        from_left.multiply(done->row(0, 0), done->right * width, projected.row(0, 0));
        done = &projected;
      }
      put(*done, e, at, count, lefts, rights, result.data());
    }
  });
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::network::detail
