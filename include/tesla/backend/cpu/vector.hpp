// SIMD batches as wide as the build allows, and loops unrolled by templates.
//
// g++ 12 may put arrays of accumulators on the stack when a pragma unrolls the loop over them; index sequences keep
// them in registers.
#pragma once

#include <tesla/core/math.hpp>
#include <tesla/core/memory.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <xsimd/xsimd.hpp>

namespace tesla::inline TESLA_TARGET::backend::cpu {

#ifdef __AVX512DQ__
// Beyond this xsimd 8 knows functions for small integers, which are not needed here and do not compile without
// optimisation.
using Architecture = xsimd::avx512dq;
#else
using Architecture = xsimd::default_arch;
#endif

template <class T>
using Vector = xsimd::batch<T, Architecture>;

/// Elements of T in one vector.
template <class T>
inline constexpr std::size_t width = Vector<T>::size;

/// Samples beside each other in panels: four cache lines; small batches take what they need, in whole vectors; one
/// sample is a plain vector.
template <class T>
inline constexpr std::size_t most_lanes = 4 * cache_line / sizeof(T);
template <class T>
constexpr std::size_t lanes_of(std::size_t batch) {
  return batch <= 1 ? 1 : std::min(round_up(batch, width<T>), most_lanes<T>);
}

/// Vector registers of the instruction set.
#ifdef __AVX512F__
inline constexpr std::size_t registers = 32;
#elif defined(__ARM_NEON)
inline constexpr std::size_t registers = 32;
#else
inline constexpr std::size_t registers = 16;
#endif

template <class T>
[[gnu::always_inline]] inline Vector<T> load(const T* p) {
  return Vector<T>::load_unaligned(p);
}
template <class T>
[[gnu::always_inline]] inline void store(T* p, Vector<T> v) {
  v.store_unaligned(p);
}

/// A store past the caches, to an aligned address; end_streams() before others read it.
template <class T>
[[gnu::always_inline]] inline void stream(T* p, Vector<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), std::bit_cast<__m512i>(v.data));
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), std::bit_cast<__m256i>(v.data));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), std::bit_cast<__m128i>(v.data));
#else
  store(p, v);
#endif
}
inline void end_streams() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

namespace detail {
template <class T>
[[gnu::noinline]] Vector<T> load_part(const T* p, std::size_t n) {
  alignas(cache_line) T lanes[width<T>] = {};
  for (std::size_t i = 0; i < n; ++i) lanes[i] = p[i];
  return Vector<T>::load_aligned(lanes);
}
template <class T>
[[gnu::noinline]] void store_part(T* p, Vector<T> v, std::size_t n) {
  alignas(cache_line) T lanes[width<T>];
  v.store_aligned(lanes);
  for (std::size_t i = 0; i < n; ++i) p[i] = lanes[i];
}
}  // namespace detail

/// At most n elements; the other lanes are zero.
template <class T>
[[gnu::always_inline]] inline Vector<T> load(const T* p, std::size_t n) {
  return n >= width<T> ? load(p) : detail::load_part(p, n);
}
template <class T>
[[gnu::always_inline]] inline void store(T* p, Vector<T> v, std::size_t n) {
  if (n >= width<T>)
    store(p, v);
  else
    detail::store_part(p, v, n);
}

/// A load whose result stays in a register; otherwise g++ folds the load into every use of it.
template <class T>
[[gnu::always_inline]] inline Vector<T> load_to_register(const T* p) {
  Vector<T> v = load(p);
#if defined(__x86_64__) && defined(__GNUC__)
  asm("" : "+v"(v.data));
#endif
  return v;
}

namespace detail {
template <class F, std::size_t... I>
[[gnu::always_inline]] constexpr void unroll_over(F&& f, std::index_sequence<I...>) {
  (f(std::integral_constant<std::size_t, I>()), ...);
}
}  // namespace detail

/// f(0), f(1), ... f(N - 1), each with its index as a constant.
template <std::size_t N, class F>
[[gnu::always_inline]] constexpr void unroll(F&& f) {
  detail::unroll_over(f, std::make_index_sequence<N>());
}

/// The sum of the lanes, always in the same order.
template <class T>
[[gnu::always_inline]] inline T sum(Vector<T> v) {
  alignas(cache_line) T lanes[width<T>];
  v.store_aligned(lanes);
  for (std::size_t half = width<T> / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

namespace detail {

// Element i of the interleaved low (or high) halves of a and b: a0 b0 a1 b1 ...
template <bool high, class Register, std::size_t... I>
[[gnu::always_inline]] inline Register interleave(Register a, Register b, std::index_sequence<I...>) {
  constexpr int n = static_cast<int>(sizeof...(I));
  return __builtin_shufflevector(a, b, (static_cast<int>(I / 2) + (high ? n / 2 : 0) + (I % 2 == 0 ? 0 : n))...);
}

template <class T, std::size_t N>
[[gnu::always_inline]] inline void transpose_stage(Vector<T> (&rows)[N]) {
  using Lanes = std::make_index_sequence<N>;
  Vector<T> next[N];
  unroll<N / 2>([&](auto i) {
    next[2 * i] = Vector<T>(interleave<false>(rows[i].data, rows[i + N / 2].data, Lanes()));
    next[2 * i + 1] = Vector<T>(interleave<true>(rows[i].data, rows[i + N / 2].data, Lanes()));
  });
  unroll<N>([&](auto i) { rows[i] = next[i]; });
}

}  // namespace detail

/// Transposes a square of width x width values in registers, by log2(width) rounds of interleaving.
template <class T>
[[gnu::always_inline]] inline void transpose(Vector<T> (&rows)[width<T>]) {
  for (std::size_t n = 1; n < width<T>; n *= 2) detail::transpose_stage<T>(rows);
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
