// Memory aligned to cache lines: an owning buffer, and an arena that is laid out once and then only handed out.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace tesla::inline TESLA_TARGET {

inline constexpr std::size_t cache_line = 64;

constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// So many bytes, for options that are numbers of bytes.
constexpr std::size_t mebibytes(std::size_t n) { return n * (std::size_t{1} << 20); }

/// Elements of memory that a computation takes: of its own, from call to call, and within a call.
struct MemoryNeed {
  std::size_t kept = 0, scratch = 0;
};

/// A number that was never given before in this process: what carries the same one has not changed.
inline std::uint64_t next_stamp() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

/// Multiplies sizes that may come from outside; an overflow is an error and not a small number.
inline std::size_t checked_product(std::size_t a, std::size_t b) {
  std::size_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) raise<ShapeError>("a size of ", a, " x ", b, " elements overflows");
  return result;
}

/// Memory aligned to cache lines, for ::operator delete of that alignment.
inline void* allocate_aligned(std::size_t bytes) {
  constexpr std::size_t most = std::size_t{1} << 47;  // no process has more addresses
  void* const memory = bytes > most ? nullptr
                                    : ::operator new(round_up(std::max<std::size_t>(bytes, 1), cache_line),
                                                     std::align_val_t(cache_line), std::nothrow);
  if (memory == nullptr) raise<MemoryError>("there is no memory for ", bytes, " bytes");
  return memory;
}
inline void* allocate_zeroed(std::size_t bytes) { return std::memset(allocate_aligned(bytes), 0, bytes); }

/// An owning array of trivial elements, aligned to a cache line, zeroed when it is made.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : size_(size) {
    if (size == 0) return;
    const std::size_t bytes = checked_product(size, sizeof(T));
    data_ = static_cast<T*>(allocate_zeroed(bytes));
  }
  Buffer(const Buffer& other) : Buffer(other.size_) {
    if (size_ != 0) std::memcpy(static_cast<void*>(data_), other.data_, size_ * sizeof(T));
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { ::operator delete(data_, std::align_val_t(cache_line)); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Memory for numbers that are written before they are read: large arrays are not worth zeroing first.
template <class T>
class Scratch {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Scratch() = default;
  explicit Scratch(std::size_t size)
      : data_(static_cast<T*>(allocate_aligned(checked_product(size, sizeof(T))))), size_(size) {}

  T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t(cache_line)); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET
