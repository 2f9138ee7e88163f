// The safetensors format: eight bytes with the length of a header, the header in JSON, the numbers of all tensors.
//
// Files come from anywhere, so the reader believes nothing: every tensor must have its bytes, no byte may belong to two
// tensors or to none, and nothing is allocated because a header says so.
#pragma once

#include <tesla/core/half.hpp>
#include <tesla/io/file.hpp>
#include <tesla/io/json.hpp>
#include <tesla/tensor/tensor.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::io {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian, like this code");

/// The element types of the format. Those without a C++ type are known by name and size, so that a file that has such
/// tensors among others can be read.
enum class DType : std::uint8_t {
  float64,
  float32,
  float16,
  bfloat16,
  complex64,
  int64,
  int32,
  int16,
  int8,
  uint64,
  uint32,
  uint16,
  uint8,
  boolean,
  float8_e4m3,
  float8_e5m2,
  float8_e8m0,
  float8_e4m3fnuz,
  float8_e5m2fnuz,
  float6_e2m3,
  float6_e3m2,
  float4
};

namespace detail {

struct DTypeFacts {
  std::string_view name;
  unsigned bits;
};

/// In the order of DType.
inline constexpr DTypeFacts dtype_facts[] = {
    {"F64", 64},        {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"C64", 64},    {"I64", 64},
    {"I32", 32},        {"I16", 16},    {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},
    {"U8", 8},          {"BOOL", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
static_assert(std::size(dtype_facts) == static_cast<std::size_t>(DType::float4) + 1);

}  // namespace detail

inline std::string_view name_of(DType dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].name; }
inline unsigned bits_of(DType dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].bits; }

/// The element type of C++ numbers. Not of bool: a byte of a file may be neither true nor false.
template <class T>
requires(is_half<T> || (std::is_arithmetic_v<T> && !std::same_as<T, bool> && sizeof(T) <= 8)) constexpr DType
    dtype_of() {
  if constexpr (is_half<T>) return std::same_as<T, BFloat16> ? DType::bfloat16 : DType::float16;
  if constexpr (std::floating_point<T>) return sizeof(T) == 8 ? DType::float64 : DType::float32;
  constexpr auto first = static_cast<int>(std::is_signed_v<T> ? DType::int64 : DType::uint64);
  return static_cast<DType>(first + 3 - std::countr_zero(sizeof(T)));
}

/// A tensor of a file: read from it, or to be written.
struct TensorInfo {
  std::string name;
  DType dtype = DType::float32;
  Shape shape;
  Bytes bytes{};
};

/// A tensor under a name, to be written. It borrows the tensor's memory.
template <class T>
TensorInfo tensor_info(std::string name, const Tensor<T>& tensor) {
  return {std::move(name), dtype_of<T>(), tensor.shape(), bytes_of(tensor)};
}

/// A safetensors file in memory.
class SafeTensors {
 public:
  /// What a header may take at most; the format says so.
  static constexpr std::uint64_t max_header = 100'000'000;

  static SafeTensors read(const std::string& path, std::uint64_t limit = default_file_limit) {
    return parse(read_file(path, limit), detail::quoted(path));
  }
  /// Takes the bytes of a file; `where` names it in errors.
  static SafeTensors parse(std::vector<std::uint8_t> bytes, std::string_view where) {
    return SafeTensors(std::move(bytes), where);
  }

  SafeTensors(SafeTensors&&) = default;  // the tensors point into memory that moves along; a copy would not have it
  SafeTensors& operator=(SafeTensors&&) = default;

  /// In the order of the header.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// An object of strings.
  const Json& metadata() const { return metadata_; }

  /// The tensor of a name, or nullptr.
  const TensorInfo* find(std::string_view name) const {
    const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                        [&](std::size_t i, std::string_view n) { return tensors_[i].name < n; });
    return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
  }
  bool contains(std::string_view name) const { return find(name) != nullptr; }

  const TensorInfo& at(std::string_view name) const {
    if (const TensorInfo* found = find(name)) return *found;
    std::string names;
    for (std::size_t i = 0; i < tensors_.size() && i < 8; ++i)
      names += text(i == 0 ? "" : ", ", detail::quoted(tensors_[i].name));
    raise<FormatError>(where_, ": no tensor ", detail::quoted(name), "; there are ", tensors_.size(),
                       tensors_.empty() ? "" : ": ", names, tensors_.size() > 8 ? ", ..." : "");
  }

  /// The numbers of a tensor. To float and double any of float, double and their halves is converted; anything else
  /// must be what is there.
  template <class T>
  Tensor<T> tensor(std::string_view name) const {
    const TensorInfo& info = at(name);
    if (info.dtype == dtype_of<T>()) {
      Tensor<T> result(info.shape);
      if (!info.bytes.empty()) std::memcpy(static_cast<void*>(result.data()), info.bytes.data(), info.bytes.size());
      return result;
    }
    if constexpr (std::floating_point<T>) {
      if (info.dtype == DType::float32 || info.dtype == DType::float64)
        return convert<T, std::conditional_t<sizeof(T) == 4, double, float>>(info);
      if (info.dtype == DType::bfloat16) return convert<T, BFloat16>(info);
      if (info.dtype == DType::float16) return convert<T, Float16>(info);
    }
    raise<FormatError>(where_, ", tensor ", detail::quoted(name), ": elements of type ", name_of(dtype_of<T>()),
                       " are wanted, the file has ", name_of(info.dtype));
  }

 private:
  struct Extent {
    std::size_t begin, end, index;
  };

  SafeTensors(std::vector<std::uint8_t> bytes, std::string_view where) : bytes_(std::move(bytes)), where_(where) {
    const auto fail = [&](const auto&... parts) { raise<FormatError>(where_, ": ", parts...); };
    if (bytes_.size() < 8) fail("a safetensors file begins with 8 bytes, this one has ", bytes_.size());
    std::uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), 8);
    if (length > max_header) fail("a header of ", length, " bytes is announced, at most ", max_header, " are allowed");
    if (length > bytes_.size() - 8)
      fail("a header of ", length, " bytes is announced, the file has ", bytes_.size() - 8, " behind the length");
    const std::string_view header(reinterpret_cast<const char*>(bytes_.data()) + 8, static_cast<std::size_t>(length));
    if (!header.starts_with('{')) fail("the header must begin with \"{\"", length == 0 ? "; it is empty" : "");
    const Json json = Json::parse(header, text(where_, ", header"));

    const Bytes data = Bytes(bytes_).subspan(8 + header.size());
    std::vector<Extent> extents;
    for (const Json::Member& member : json.members()) {
      if (member.key == "__metadata__") {
        read_metadata(member.value);
        continue;
      }
      try {
        read_tensor(member, data, extents);
      } catch (const FormatError& error) {
        fail("tensor ", detail::quoted(member.key), ": ", error.what());
      }
    }
    // Each tensor begins where the one before ends, and the last one ends with the file.
    std::sort(extents.begin(), extents.end(),
              [](const Extent& a, const Extent& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
    std::size_t covered = 0;
    for (const Extent& extent : extents) {
      if (extent.begin != covered)
        fail("tensor ", detail::quoted(tensors_[extent.index].name), ": it begins at byte ", extent.begin,
             " of the data, the one before ends at ", covered, "; tensors must follow each other");
      covered = extent.end;
    }
    if (covered != data.size()) fail("the tensors end at byte ", covered, " of the data, which has ", data.size());

    std::vector<std::string_view> names;
    for (const TensorInfo& tensor : tensors_) names.push_back(tensor.name);
    by_name_ = detail::sorted_order(names);
  }

  void read_metadata(const Json& metadata) {
    if (!metadata.is_object())
      raise<FormatError>(where_, ": \"__metadata__\" must be an object, it is ", metadata.describe());
    for (const Json::Member& member : metadata.members())
      if (!member.value.is_string())
        raise<FormatError>(where_, ": in \"__metadata__\", ", detail::quoted(member.key), " must be a string, it is ",
                           member.value.describe());
    metadata_ = metadata;
  }

  void read_tensor(const Json::Member& member, Bytes data, std::vector<Extent>& extents) {
    const auto name = member.value.get<std::string>("dtype");
    const auto* facts = std::find_if(std::begin(detail::dtype_facts), std::end(detail::dtype_facts),
                                     [&](const detail::DTypeFacts& f) { return f.name == name; });
    if (facts == std::end(detail::dtype_facts)) raise<FormatError>("unknown dtype ", detail::quoted(name));
    const auto extents_of_shape = member.value.get<std::vector<std::size_t>>("shape");
    if (extents_of_shape.size() > Shape::max_rank)
      raise<FormatError>("it has ", extents_of_shape.size(), " dimensions, at most ", Shape::max_rank,
                         " are supported");
    // Checked as if no extent were zero: {0, 2^40, 2^40} has no elements, but nobody can compute its strides.
    std::size_t bits = facts->bits;
    for (const std::size_t extent : extents_of_shape)
      if (__builtin_mul_overflow(bits, std::max<std::size_t>(extent, 1), &bits))
        raise<FormatError>("its shape ", member.value.at("shape").write(), " is too large to be addressed");
    const Shape shape{std::span<const std::size_t>(extents_of_shape)};
    if (shape.elements() == 0) bits = 0;
    if (bits % 8 != 0) raise<FormatError>("it does not fill whole bytes: its size is ", bits, " bits");

    const auto offsets = member.value.get<std::vector<std::size_t>>("data_offsets");
    if (offsets.size() != 2) raise<FormatError>("\"data_offsets\" are two numbers, not ", offsets.size());
    if (offsets[0] > offsets[1] || offsets[1] > data.size())
      raise<FormatError>("\"data_offsets\" are ", offsets[0], " and ", offsets[1], " in data of ", data.size(),
                         " bytes");
    if (offsets[1] - offsets[0] != bits / 8)
      raise<FormatError>("\"data_offsets\" leave ", offsets[1] - offsets[0], " bytes for a tensor of shape ", shape,
                         " and dtype ", name, ", which takes ", bits / 8);
    extents.push_back({offsets[0], offsets[1], tensors_.size()});
    const auto index = static_cast<std::size_t>(facts - std::begin(detail::dtype_facts));
    tensors_.push_back({member.key, static_cast<DType>(index), shape, data.subspan(offsets[0], bits / 8)});
  }

  template <class To, class From>
  Tensor<To> convert(const TensorInfo& info) const {
    Tensor<To> result(info.shape);
    for (std::size_t i = 0; i < result.size(); ++i) {
      From value;
      std::memcpy(&value, info.bytes.data() + i * sizeof value, sizeof value);  // at any alignment
      result[i] = static_cast<To>(value);
      if constexpr (std::floating_point<From>)
        if (std::isinf(result[i]) && !std::isinf(value))
          raise<FormatError>(where_, ", tensor ", detail::quoted(info.name), ": element ", i, " is ", value,
                             ", which no float can be; read it as double");
    }
    return result;
  }

  std::vector<std::uint8_t> bytes_;
  std::string where_;
  std::vector<TensorInfo> tensors_;
  std::vector<std::size_t> by_name_;
  Json metadata_ = Json::object();
};

/// Writes a file piece by piece: first the names and shapes of all tensors, then their bytes in the same order, in
/// chunks of any size. TensorInfo::bytes is not used. Put the types with the largest elements first to keep all
/// aligned.
class SafeTensorsWriter {
 public:
  SafeTensorsWriter(const std::string& path, std::span<const TensorInfo> tensors, const Json& metadata = Json::object())
      : path_(path), header_(header_of(path, tensors, metadata, data_size_)), file_(path) {
    const std::uint64_t length = header_.size();
    file_.write({reinterpret_cast<const std::uint8_t*>(&length), sizeof length});
    file_.write(bytes_of(header_));
  }

  void write(Bytes bytes) { file_.write(bytes); }

  /// Puts the file in the place of the old one.
  void commit() {
    const std::uint64_t written = file_.size() - sizeof(std::uint64_t) - header_.size();
    if (written != data_size_)
      raise<UsageError>("cannot write ", detail::quoted(path_), ": its tensors take ", data_size_, " bytes, ", written,
                        " have been written");
    file_.commit();
  }

 private:
  static std::string header_of(const std::string& path, std::span<const TensorInfo> tensors, const Json& metadata,
                               std::uint64_t& offset) {
    const auto fail = [&](const auto&... parts) {
      raise<UsageError>("cannot write ", detail::quoted(path), ": ", parts...);
    };
    if (!metadata.is_object()) fail("metadata must be an object, it is ", metadata.describe());
    for (const Json::Member& member : metadata.members())
      if (!member.value.is_string())
        fail("metadata must be strings, ", detail::quoted(member.key), " is ", member.value.describe());
    std::vector<std::string_view> names{"__metadata__"};
    std::string header = metadata.size() == 0 ? "{" : text("{\"__metadata__\":", metadata.write());
    for (const TensorInfo& tensor : tensors) {
      const std::uint64_t bits = checked_product(tensor.shape.elements(), bits_of(tensor.dtype));
      if (bits % 8 != 0) fail("tensor ", detail::quoted(tensor.name), " does not fill whole bytes: ", bits, " bits");
      std::uint64_t end = 0;
      if (__builtin_add_overflow(offset, bits / 8, &end)) fail("its tensors take more than 2^64 bytes");
      const Json json = Json::object({{"dtype", name_of(tensor.dtype)},
                                      {"shape", Json::array(tensor.shape)},
                                      {"data_offsets", Json::array({offset, end})}});
      header += text(header.size() == 1 ? "" : ",", Json(tensor.name).write(), ":", json.write());
      offset = end;
      names.push_back(tensor.name);
    }
    header += '}';
    if (const std::size_t twin = detail::first_twin(names); twin != names.size())
      fail("a tensor of the name ", detail::quoted(names[twin]), ", which another has or the format keeps for itself");
    // So that the numbers begin at a cache line of a file that is mapped into memory.
    header.resize(round_up(8 + header.size(), cache_line) - 8, ' ');
    if (header.size() > SafeTensors::max_header)
      fail("its header would take ", header.size(), " bytes, at most ", SafeTensors::max_header, " are allowed");
    return header;
  }

  std::string path_;
  std::uint64_t data_size_ = 0;  // before header_, which computes it
  std::string header_;
  AtomicFile file_;
};

/// Writes a file of tensors whose bytes are in memory. The largest elements come first, so that all are aligned.
inline void write_safetensors(const std::string& path, const std::vector<TensorInfo>& tensors,
                              const Json& metadata = Json::object()) {
  for (const TensorInfo& tensor : tensors)
    if (checked_product(tensor.shape.elements(), bits_of(tensor.dtype)) != checked_product(tensor.bytes.size(), 8))
      raise<UsageError>("cannot write ", detail::quoted(path), ": tensor ", detail::quoted(tensor.name), " of shape ",
                        tensor.shape, " and dtype ", name_of(tensor.dtype), " comes with ", tensor.bytes.size(),
                        " bytes");
  std::vector<TensorInfo> sorted;
  for (const unsigned bits : {64U, 32U, 16U, 8U, 6U, 4U})
    for (const TensorInfo& tensor : tensors)
      if (bits_of(tensor.dtype) == bits) sorted.push_back(tensor);
  SafeTensorsWriter writer(path, sorted, metadata);
  for (const TensorInfo& tensor : sorted) writer.write(tensor.bytes);
  writer.commit();
}

}  // namespace tesla::inline TESLA_TARGET::io
