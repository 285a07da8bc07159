// Little-endian bytes of fixed-width numbers and arrays, written in order and read back with every
// length checked.
#ifndef ATTIC_BASE_BYTE_CODEC_H_
#define ATTIC_BASE_BYTE_CODEC_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace attic {

static_assert(std::endian::native == std::endian::little, "bytes are stored as they are in memory");

// Not thread-safe.
class ByteWriter {
 public:
  template <typename T>
  void Put(const T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  // The number of elements, then the elements.
  template <typename T>
  void PutArray(std::span<const T> values) {
    static_assert(std::is_arithmetic_v<T>);
    Put<uint64_t>(values.size());
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  template <typename T>
  void PutArray(const std::vector<T>& values) {
    PutArray(std::span<const T>(values));
  }
  void PutText(const std::string& text) {
    Put<uint64_t>(text.size());
    bytes_.append(text);
  }

  const std::string& bytes() const { return bytes_; }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what a ByteWriter wrote. After something did not fit, everything read is zero or empty and
// ok() is false: so it may be asked once, at the end. Allocates no more than the bytes there are.
// Not thread-safe; borrows the bytes.
class ByteReader {
 public:
  explicit ByteReader(std::span<const char> bytes) : left_(bytes) {}
  explicit ByteReader(const std::string& bytes) : left_(bytes.data(), bytes.size()) {}

  template <typename T>
  T Get() {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    T value{};
    Copy(&value, sizeof(T));
    return value;
  }
  template <typename T>
  std::vector<T> GetArray() {
    const auto count = Get<uint64_t>();
    std::vector<T> values;
    if (count > left_.size() / sizeof(T)) {
      Fail();
      return values;
    }
    values.resize(count);
    Copy(values.data(), count * sizeof(T));
    return values;
  }
  std::string GetText() {
    const auto count = Get<uint64_t>();
    if (count > left_.size()) {
      Fail();
      return {};
    }
    std::string text(left_.data(), count);
    left_ = left_.subspan(count);
    return text;
  }

  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && left_.empty(); }

 private:
  void Fail() {
    ok_ = false;
    left_ = {};
  }
  void Copy(void* to, size_t bytes) {
    if (bytes > left_.size()) {
      Fail();
      return;
    }
    if (bytes > 0) std::memcpy(to, left_.data(), bytes);
    left_ = left_.subspan(bytes);
  }

  std::span<const char> left_;
  bool ok_ = true;
};

}  // namespace attic

#endif  // ATTIC_BASE_BYTE_CODEC_H_
