#include "attention/element_type.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/element_type.cc"
#include "hwy/foreach_target.h"
// foreach_target.h must come first.
#include "attention/widen-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic::HWY_NAMESPACE {

// The largest vectors any target has here; buffers for the last, incomplete vectors of an array.
constexpr size_t kLanesMax = HWY_MAX_BYTES / sizeof(float);

template <class Rows>
void WidenRows(const std::byte* in, size_t count, float* out) {
  const hn::ScalableTag<float> d;
  using Element = typename Rows::Element;
  const size_t step = 2 * hn::Lanes(d);
  const auto* p = reinterpret_cast<const Element*>(in);
  hn::Vec<decltype(d)> a, b;
  size_t i = 0;
  for (; i + step <= count; i += step) {
    Rows::Load(d, p + i, a, b);
    Rows::StorePair(d, a, b, out + i);
  }
  if (i == count) return;
  Element last[2 * kLanesMax] = {};
  float widened[2 * kLanesMax];
  std::memcpy(last, in + i * sizeof(Element), (count - i) * sizeof(Element));
  Rows::Load(d, last, a, b);
  Rows::StorePair(d, a, b, widened);
  std::copy_n(widened, count - i, out + i);
}

void Widen(const std::byte* in, ElementType type, size_t count, float* out) {
  switch (type) {
    case ElementType::kFloat32:
      std::memcpy(out, in, count * sizeof(float));
      return;
    case ElementType::kBFloat16:
      return WidenRows<BFloat16Rows>(in, count, out);
    case ElementType::kFloat16:
      return WidenRows<Float16Rows>(in, count, out);
  }
}

// float32 bits to bfloat16 bits in the low half of each lane, to nearest even; NaN stays NaN.
template <class DU, class V>
HWY_INLINE V BFloat16Bits(DU du, V bits) {
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
  const auto is_nan = hn::Gt(magnitude, hn::Set(du, 0x7F800000u));
  const auto high = hn::ShiftRight<16>(bits);
  const auto odd = hn::And(high, hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(du, 0x7FFFu), odd)));
  return hn::IfThenElse(is_nan, hn::Or(high, hn::Set(du, 0x40u)), rounded);
}

// float32 bits to IEEE half precision bits in the low half of each lane, to nearest even.
template <class DU, class V>
HWY_INLINE V HalfBits(DU du, V bits) {
  const hn::RebindToFloat<DU> df;
  const auto sign = hn::And(bits, hn::Set(du, 0x80000000u));
  const auto magnitude = hn::Xor(bits, sign);
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1u));
  const auto rebias = hn::Set(du, ((15u - 127u) << 23) + 0xFFFu);  // wraps around
  const auto normal = hn::ShiftRight<13>(hn::Add(magnitude, hn::Add(rebias, odd)));
  // Subnormal results: adding 0.5 aligns the mantissa so that the float unit rounds it.
  const auto align = hn::Set(du, ((127u - 15u) + (23u - 10u) + 1u) << 23);
  const auto subnormal =
      hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(df, magnitude), hn::BitCast(df, align))), align);
  const auto special = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x7F800000u)),
                                      hn::Set(du, 0x7E00u), hn::Set(du, 0x7C00u));
  auto half = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 113u << 23)), subnormal, normal);
  half = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, (143u << 23) - 1)), special, half);
  return hn::Or(half, hn::ShiftRight<16>(sign));
}

template <ElementType kType>
void NarrowRows(const float* in, size_t count, std::byte* out) {
  const hn::ScalableTag<uint32_t> du;
  const hn::Rebind<uint16_t, decltype(du)> dh;
  const size_t lanes = hn::Lanes(du);
  auto* target = reinterpret_cast<uint16_t*>(out);
  uint32_t last[kLanesMax] = {};
  uint16_t narrowed[kLanesMax];
  for (size_t i = 0; i < count; i += lanes) {
    const bool whole = i + lanes <= count;
    if (!whole) std::memcpy(last, in + i, (count - i) * sizeof(float));
    const auto bits = hn::LoadU(du, whole ? reinterpret_cast<const uint32_t*>(in + i) : last);
    const auto narrow =
        kType == ElementType::kBFloat16 ? BFloat16Bits(du, bits) : HalfBits(du, bits);
    hn::StoreU(hn::TruncateTo(dh, narrow), dh, whole ? target + i : narrowed);
    if (!whole) std::memcpy(out + i * sizeof(uint16_t), narrowed, (count - i) * sizeof(uint16_t));
  }
}

void Narrow(const float* in, ElementType type, size_t count, std::byte* out) {
  switch (type) {
    case ElementType::kFloat32:
      std::memcpy(out, in, count * sizeof(float));
      return;
    case ElementType::kBFloat16:
      return NarrowRows<ElementType::kBFloat16>(in, count, out);
    case ElementType::kFloat16:
      return NarrowRows<ElementType::kFloat16>(in, count, out);
  }
}

// True when no element has all the bits of exponent_mask, which is how infinity and NaN look.
template <typename T>
bool NoFullExponent(const std::byte* in, size_t count, T exponent_mask) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  const auto mask = hn::Set(d, exponent_mask);
  const auto* p = reinterpret_cast<const T*>(in);
  auto found = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    found = hn::Or(found, hn::VecFromMask(d, hn::Eq(hn::And(hn::LoadU(d, p + i), mask), mask)));
  }
  if (i < count) {
    T last[HWY_MAX_BYTES / sizeof(T)] = {};
    std::memcpy(last, in + i * sizeof(T), (count - i) * sizeof(T));
    found = hn::Or(found, hn::VecFromMask(d, hn::Eq(hn::And(hn::LoadU(d, last), mask), mask)));
  }
  return hn::AllTrue(d, hn::Eq(found, hn::Zero(d)));
}

bool Finite(const std::byte* in, ElementType type, size_t count) {
  switch (type) {
    case ElementType::kFloat32:
      return NoFullExponent<uint32_t>(in, count, 0x7F800000u);
    case ElementType::kBFloat16:
      return NoFullExponent<uint16_t>(in, count, 0x7F80u);
    case ElementType::kFloat16:
      return NoFullExponent<uint16_t>(in, count, 0x7C00u);
  }
  return false;
}

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(Widen);
HWY_EXPORT(Narrow);
HWY_EXPORT(Finite);

const char* ElementTypeName(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "float32";
    case ElementType::kBFloat16:
      return "bfloat16";
    case ElementType::kFloat16:
      return "float16";
  }
  ATTIC_CHECK(false);
  return "";
}

void ToFloat32(const std::byte* in, ElementType type, std::span<float> out) {
  if (out.empty()) return;
  HWY_DYNAMIC_DISPATCH(Widen)(in, type, out.size(), out.data());
}

void FromFloat32(std::span<const float> in, ElementType type, std::byte* out) {
  if (in.empty()) return;
  HWY_DYNAMIC_DISPATCH(Narrow)(in.data(), type, in.size(), out);
}

bool AllFinite(const std::byte* in, ElementType type, size_t count) {
  return HWY_DYNAMIC_DISPATCH(Finite)(in, type, count);
}

}  // namespace attic
#endif  // HWY_ONCE
