// Draws one handwritten digit: a glyph bent, moved and inked at random.
//
// Whole numbers only. Sums of floating-point numbers depend on the compiler, its options and the C library (contraction
// to FMA, sin and cos); whole numbers do not, so a seed gives the same pixels everywhere, and accuracies reached on
// them can be compared between machines.
#pragma once

#include <tesla/core/random.hpp>
#include <tesla/data/glyphs.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

namespace tesla::inline TESLA_TARGET::data::detail {

class DigitPainter {
 public:
  static constexpr int side = 28;
  static constexpr std::size_t pixels = side * side;
  using Image = std::span<std::uint8_t, pixels>;

  /// All that is random comes from this stream.
  explicit DigitPainter(const random::Stream& stream) : random_(stream) {}

  void paint(int digit, Image image) {
    const Glyph& glyph = any_glyph(digit);
    nearest_.fill(far_away);
    radius_ = between(266, 534);  // one to two pixels
    softness_ = between(110, 180);
    reach_ = radius_ * 5 / 4 + softness_;
    draw(glyph, any_bend());
    for (int specks = below(8) == 0 ? between(1, 2) : 0; specks > 0; --specks) {
      const int x = between(2 * one, 26 * one), y = between(2 * one, 26 * one),
                size = between(radius_ / 3, radius_ * 2 / 3);
      stamp({x, y}, as_pen(size));
    }
    develop(image);
  }

 private:
  // Positions are in 1/256 of a pixel, except in a glyph's box, where they are in 1/256 of a hundredth of its side.
  struct Point {
    int x, y;
  };
  static constexpr int one = 256;
  static constexpr int far_away = 1 << 28;  // a squared distance

  /// How a digit differs from its glyph.
  struct Bend {
    std::array<Point, 9> warp;         // where a grid of 3 x 3 points over the box moves to
    std::int64_t width, height;        // of the box in pixels, times 65536 / 100
    std::int64_t slant, cosine, sine;  // times 65536
    Point centre;
  };

  // How much varies how far was chosen so that 10000 samples teach a network of 784-300-100-10 units to get 98 to 99 of
  // a hundred right, and a linear model no more than 92.

  int below(int n) { return static_cast<int>(random_.below(drawn_++, static_cast<std::uint64_t>(n))); }
  int between(int low, int high) { return low + below(high - low + 1); }
  /// About normal in [-reach, reach], with a standard deviation of 0.29 reach: the sum of four uniform numbers.
  int bell(int reach) {
    const std::uint64_t bits = random_.bits(drawn_++);
    const auto sum =
        static_cast<std::int64_t>((bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48));
    return static_cast<int>((sum - 2 * 0xFFFF) * reach / (2 * 0xFFFF));
  }

  const Glyph& any_glyph(int digit) {
    const auto is_it = [&](const Glyph& glyph) { return glyph.digit == digit; };
    const Glyph* first = std::find_if(std::begin(glyphs), std::end(glyphs), is_it);
    return first[below(static_cast<int>(std::count_if(std::begin(glyphs), std::end(glyphs), is_it)))];
  }

  Bend any_bend() {
    Bend bend{};
    for (Point& point : bend.warp) {
      point.x = bell(18 * one);
      point.y = bell(18 * one);
    }
    constexpr int unit = 65536, box = 22 * unit / 100;
    bend.width = box + bell(box * 30 / 100);
    bend.height = box + bell(box * 18 / 100);
    bend.slant = bell(unit * 50 / 100);
    // The rational points of the circle: t is the tangent of half the angle.
    const std::int64_t t = bell(unit * 16 / 100), square = std::int64_t{unit} * unit;
    bend.cosine = (square - t * t) * unit / (square + t * t);
    bend.sine = 2 * t * square / (square + t * t);
    bend.centre.x = side * one / 2 + bell(side * one / 5);
    bend.centre.y = side * one / 2 + bell(side * one / 5);
    return bend;
  }

  /// A point of a glyph as a point of the image.
  Point place(GlyphPoint point, const Bend& bend) {
    // How the warp moves it: between the four points of the grid around it.
    const int inside_x = std::clamp<int>(point.x, 0, 99), inside_y = std::clamp<int>(point.y, 0, 99);
    const Point* corner = &bend.warp[static_cast<std::size_t>(inside_y / 50 * 3 + inside_x / 50)];
    const int right = inside_x % 50, down = inside_y % 50;
    const auto mix = [&](int Point::*axis) {
      const int top = corner[0].*axis * (50 - right) + corner[1].*axis * right;
      const int bottom = corner[3].*axis * (50 - right) + corner[4].*axis * right;
      return (top * (50 - down) + bottom * down) / 2500;
    };
    const int jitter_x = bell(7 * one), jitter_y = bell(7 * one);
    const std::int64_t u = (point.x - 50) * one + mix(&Point::x) + jitter_x;
    const std::int64_t v = (point.y - 50) * one + mix(&Point::y) + jitter_y;
    const std::int64_t y = v * bend.height >> 16, x = (u * bend.width >> 16) - (y * bend.slant >> 16);
    return {static_cast<int>((x * bend.cosine - y * bend.sine) >> 16) + bend.centre.x,
            static_cast<int>((x * bend.sine + y * bend.cosine) >> 16) + bend.centre.y};
  }

  void draw(const Glyph& glyph, const Bend& bend) {
    std::array<Point, std::size(Glyph{}.points)> stroke{};
    std::size_t count = 0;
    GlyphPoint before = lift;
    for (const GlyphPoint point : glyph.points) {
      if (point == lift || point == glyph_end) {
        draw(std::span<const Point>(stroke.data(), count));
        count = 0;
        if (point == glyph_end) break;
      } else {
        stroke[count] = point == before ? stroke[count - 1] : place(point, bend);  // corners stay corners
        ++count;
      }
      before = point;
    }
  }

  /// A quadratic B-spline, as the Bezier curves that it consists of. The pen's pressure changes on the way.
  void draw(std::span<const Point> points) {
    const int begin = as_pen(radius_ * between(85, 115) / 100), end = as_pen(radius_ * between(85, 115) / 100);
    if (points.size() == 2) return draw(points[0], middle(points[0], points[1]), points[1], begin, end);
    const auto curves = static_cast<int>(points.size()) - 2;
    Point from = points[0];
    for (int i = 1; i <= curves; ++i) {
      const Point* control = &points[static_cast<std::size_t>(i)];
      const Point to = i == curves ? control[1] : middle(control[0], control[1]);
      draw(from, control[0], to, begin + (end - begin) * (i - 1) / curves, begin + (end - begin) * i / curves);
      from = to;
    }
  }

  /// A Bezier curve, as dots less than half a pixel apart.
  void draw(Point a, Point b, Point c, int begin, int end) {
    const int length = apart(a, b) + apart(b, c), steps = length / 96 + 1;
    for (int i = 0; i <= steps; ++i) {
      const std::int64_t fa = std::int64_t{steps - i} * (steps - i), fb = std::int64_t{2} * i * (steps - i);
      const std::int64_t fc = std::int64_t{i} * i, sum = std::int64_t{steps} * steps;
      stamp({static_cast<int>((a.x * fa + b.x * fb + c.x * fc) / sum),
             static_cast<int>((a.y * fa + b.y * fb + c.y * fc) / sum)},
            begin + (end - begin) * i / steps);
    }
  }

  static Point middle(Point a, Point b) { return {(a.x + b.x) / 2, (a.y + b.y) / 2}; }
  static int apart(Point a, Point b) { return std::max(std::abs(a.x - b.x), std::abs(a.y - b.y)); }

  /// A dot of another radius than the pen's is one of the pen's radius, further away.
  int as_pen(int radius) const { return radius_ * radius_ - radius * radius; }

  /// Lets the pixels around a point know how near it is.
  void stamp(Point point, int further) {
    const auto first = [&](int at) { return std::max((at - reach_ + one / 2 - 1) / one, 0); };
    const auto last = [&](int at) { return std::min((at + reach_ - one / 2) / one, side - 1); };
    for (int y = first(point.y); y <= last(point.y); ++y) {
      const int dy = y * one + one / 2 - point.y;
      for (int x = first(point.x); x <= last(point.x); ++x) {
        const int dx = x * one + one / 2 - point.x;
        int& nearest = nearest_[static_cast<std::size_t>(y * side + x)];
        nearest = std::min(nearest, dx * dx + dy * dy + further);
      }
    }
  }

  /// From distances to grey values: full ink within the radius, none outside, a soft edge, a little blur and noise.
  void develop(Image image) {
    const int inner = std::max(radius_ - softness_, 0), outer = radius_ + softness_,
              edge = outer * outer - inner * inner;
    const int full = 16 * between(170, 255);  // sixteen times finer than the result, until it is rounded
    const int side_weight = below(15), weight = 64 - 2 * side_weight, noise = below(17);

    // A frame of blank pixels around the image spares the blur its questions.
    constexpr std::size_t wide = side + 2;
    std::array<int, wide * wide> ink{}, across{};
    for (std::size_t y = 0; y < side; ++y)
      for (std::size_t x = 0; x < side; ++x) {
        const std::int64_t within = std::clamp(outer * outer - nearest_[y * side + x], 0, edge);
        ink[(y + 1) * wide + x + 1] = static_cast<int>(within * full / edge);
      }
    for (std::size_t i = 1; i + 1 < ink.size(); ++i)
      across[i] = (ink[i] * weight + (ink[i - 1] + ink[i + 1]) * side_weight) / 64;

    std::uint64_t grain = 0;
    for (std::size_t i = 0; i < pixels; ++i) {
      grain = i % 8 == 0 ? random_.bits(drawn_++) : grain >> 8;
      const int speck = static_cast<int>((grain & 15) + (grain >> 4 & 15)) - 15;
      const int* p = &across[(i / side + 1) * wide + i % side + 1];
      const int value = (*p * weight + (*(p - wide) + *(p + wide)) * side_weight) / 1024 + speck * noise / 8;
      image[i] = static_cast<std::uint8_t>(std::clamp(value, 0, 255));
    }
  }

  random::Stream random_;
  std::uint64_t drawn_ = 0;  // numbers taken from the stream
  int radius_ = 0, softness_ = 0, reach_ = 0;
  std::array<int, pixels> nearest_{};  // squared distance of each pixel from the nearest dot
};

}  // namespace tesla::inline TESLA_TARGET::data::detail
