// Element types of stored vectors and the conversions between them.
#ifndef ATTIC_ATTENTION_ELEMENT_TYPE_H_
#define ATTIC_ATTENTION_ELEMENT_TYPE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace attic {

enum class ElementType : uint8_t { kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };

// Bytes of one element: 4, 2, 2.
constexpr size_t ElementBytes(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

// "float32", "bfloat16", "float16".
const char* ElementTypeName(ElementType type);

// Borrowed row-major matrix (count, dim) of elements, little-endian, rows contiguous, no alignment
// required. Does not own `data`.
struct VectorsView {
  const std::byte* data = nullptr;
  ElementType type = ElementType::kFloat32;
  size_t count = 0;
  size_t dim = 0;

  size_t row_bytes() const { return dim * ElementBytes(type); }
  size_t bytes() const { return count * row_bytes(); }
  const std::byte* row(size_t i) const { return data + i * row_bytes(); }
  VectorsView rows(size_t begin, size_t n) const { return {row(begin), type, n, dim}; }
};

// Rows anywhere in memory, `dim` elements each, packed; no alignment required. Owns nothing.
struct ScatteredRows {
  std::span<const std::byte* const> rows;
  ElementType type = ElementType::kFloat32;
  size_t dim = 0;
};

// Widens `out.size()` elements at `in` to float32. Exact for every type.
void ToFloat32(const std::byte* in, ElementType type, std::span<float> out);

// Narrows to `type` at `out` (in.size() * ElementBytes(type) bytes), rounding to nearest even.
void FromFloat32(std::span<const float> in, ElementType type, std::byte* out);

// True when every element is finite (neither infinity nor NaN).
bool AllFinite(const std::byte* in, ElementType type, size_t count);

}  // namespace attic

#endif  // ATTIC_ATTENTION_ELEMENT_TYPE_H_
