// Loads of element rows widened to float32, for each Highway target. Include from a file that uses
// foreach_target.h; Highway repeats it per target.
//
// A row is walked in pairs of vectors: 2 * Lanes(d) elements at a time. Which element lands in
// which lane is the loader's choice (bfloat16 is split into even and odd elements, one shift and
// one mask each, instead of two shuffles); float32 arrays that meet the row are brought to the same
// order with LoadPair and back with StorePair.
#if defined(ATTIC_ATTENTION_WIDEN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTIC_ATTENTION_WIDEN_INL_H_
#undef ATTIC_ATTENTION_WIDEN_INL_H_
#else
#define ATTIC_ATTENTION_WIDEN_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// IEEE half precision bits, one per 32-bit lane, to float32; exact, subnormals included.
template <class D, class VU32>
HWY_INLINE hn::Vec<D> HalfBitsToFloat(D d, VU32 half) {
  const hn::RebindToUnsigned<D> du;
  const auto exponent_mask = hn::Set(du, 0x7C00u << 13);
  const auto magnitude = hn::ShiftLeft<13>(hn::And(half, hn::Set(du, 0x7FFFu)));
  const auto exponent = hn::And(magnitude, exponent_mask);
  const auto rebiased = hn::Add(magnitude, hn::Set(du, (127u - 15u) << 23));
  const auto special = hn::Add(rebiased, hn::Set(du, (128u - 16u) << 23));  // infinity, NaN
  // Subnormal: with the exponent of the smallest normal put in, the implicit one is subtracted.
  const auto smallest_normal = hn::Set(du, 113u << 23);
  const auto subnormal =
      hn::BitCast(du, hn::Sub(hn::BitCast(d, hn::Add(rebiased, hn::Set(du, 1u << 23))),
                              hn::BitCast(d, smallest_normal)));
  auto bits = hn::IfThenElse(hn::Eq(exponent, exponent_mask), special, rebiased);
  bits = hn::IfThenElse(hn::Eq(exponent, hn::Zero(du)), subnormal, bits);
  const auto sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(du, 0x8000u)));
  return hn::BitCast(d, hn::Or(bits, sign));
}

// Lanes(d) half precision numbers from p.
template <class D>
HWY_INLINE hn::Vec<D> LoadHalf(D d, const uint16_t* p) {
#if (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3) && !defined(HWY_DISABLE_F16C)
  const hn::Rebind<hwy::float16_t, D> dh;
  return hn::PromoteTo(d, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(p)));
#else
  const hn::Rebind<uint16_t, D> dh;
  return HalfBitsToFloat(d, hn::PromoteTo(hn::RebindToUnsigned<D>(), hn::LoadU(dh, p)));
#endif
}

// How far ahead of the arithmetic rows are asked for, and the asking. Rows are read in several
// streams and with pauses, which the processor's own prefetching follows less well: exact scans of
// long contexts run 1.4 times faster with it.
constexpr size_t kPrefetchAheadBytes = 4096;

HWY_INLINE void PrefetchBytes(const std::byte* p, size_t bytes) {
  constexpr size_t kCacheLineBytes = 64;
  for (size_t i = 0; i < bytes; i += kCacheLineBytes) hwy::Prefetch(p + i);
}

struct Float32Rows {
  using Element = float;
  template <class D, class V>
  static HWY_INLINE void Load(D d, const Element* p, V& a, V& b) {
    a = hn::LoadU(d, p);
    b = hn::LoadU(d, p + hn::Lanes(d));
  }
  template <class D, class V>
  static HWY_INLINE void LoadPair(D d, const float* p, V& a, V& b) {
    a = hn::LoadU(d, p);
    b = hn::LoadU(d, p + hn::Lanes(d));
  }
  template <class D, class V>
  static HWY_INLINE void StorePair(D d, V a, V b, float* p) {
    hn::StoreU(a, d, p);
    hn::StoreU(b, d, p + hn::Lanes(d));
  }
};

struct Float16Rows {
  using Element = uint16_t;
  template <class D, class V>
  static HWY_INLINE void Load(D d, const Element* p, V& a, V& b) {
    a = LoadHalf(d, p);
    b = LoadHalf(d, p + hn::Lanes(d));
  }
  template <class D, class V>
  static HWY_INLINE void LoadPair(D d, const float* p, V& a, V& b) {
    Float32Rows::LoadPair(d, p, a, b);
  }
  template <class D, class V>
  static HWY_INLINE void StorePair(D d, V a, V b, float* p) {
    Float32Rows::StorePair(d, a, b, p);
  }
};

struct BFloat16Rows {
  using Element = uint16_t;
  // Little-endian: the even element is the low half of each 32-bit lane.
  template <class D, class V>
  static HWY_INLINE void Load(D d, const Element* p, V& a, V& b) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p));
    a = hn::BitCast(d, hn::ShiftLeft<16>(bits));
    b = hn::BitCast(d, hn::And(bits, hn::Set(du, 0xFFFF0000u)));
  }
  template <class D, class V>
  static HWY_INLINE void LoadPair(D d, const float* p, V& a, V& b) {
    hn::LoadInterleaved2(d, p, a, b);
  }
  template <class D, class V>
  static HWY_INLINE void StorePair(D d, V a, V b, float* p) {
    hn::StoreInterleaved2(a, b, d, p);
  }
};

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ATTIC_ATTENTION_WIDEN_INL_H_
