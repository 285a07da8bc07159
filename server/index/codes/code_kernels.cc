#include "server/index/codes/code_kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/prefetch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/index/codes/code_kernels.cc"
#include "hwy/foreach_target.h"
// Highway must come after foreach_target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The first n elements at p, then zeros; reads no others.
template <class D>
HWY_INLINE hn::VFromD<D> LoadFirst(D d, const float* p, size_t n) {
  if (HWY_LIKELY(n >= hn::Lanes(d))) return hn::LoadU(d, p);
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float padded[HWY_MAX_BYTES / sizeof(float)] = {};
  std::copy_n(p, n, padded);
  return hn::Load(d, padded);
#else
  return hn::MaskedLoad(hn::FirstN(d, n), d, p);
#endif
}

constexpr float kFactorMin = 1e-30f;  // of a block of keys that equal their reference

// The limits of one vector of blocks.
class LimitMaker {
 public:
  using F = hn::CappedTag<float, kCodeLimitsSlack>;
  using V = hn::VFromD<F>;

  LimitMaker(const CodeQuestion& question, size_t code_bytes)
      : question_(question),
        scale_(static_cast<float>(CodeSumScale(code_bytes))),
        inverse_step_(1.0f / question.step) {}

  HWY_INLINE void Make(V base, V radius, V f, const CodeLimits& limits, size_t i) const {
    const V zero = hn::Zero(d_);
    const V error2 = hn::Set(d_, question_.error * question_.error);
    const V table_error = hn::Set(d_, question_.table_error);
    const V table_error2 = hn::Mul(table_error, table_error);
    const V missing = hn::Sub(hn::Set(d_, question_.floor), base);
    const V missing_estimate = hn::Sub(hn::Set(d_, question_.estimate_floor), base);
    const V along = hn::Max(missing, zero);
    const V along2 = hn::Mul(along, along);
    const V f2 = hn::Mul(f, f);
    const V inverse = hn::Div(hn::Set(d_, inverse_step_), hn::Max(f, hn::Set(d_, kFactorMin)));
    const V offset = hn::Set(d_, question_.offset * inverse_step_);
    // The block: the largest |r| and f together.
    const V reach = hn::Mul(radius, hn::Set(d_, question_.length));
    const V across = hn::Max(hn::NegMulAdd(along, along, hn::Mul(reach, reach)), zero);
    const V margin = hn::Sqrt(hn::MulAdd(error2, across, hn::Mul(table_error2, f2)));
    const V needed = hn::Sub(missing, margin);
    const V least = hn::Max(needed, missing_estimate);
    const V sum = hn::Sub(hn::Mul(least, inverse), offset);
    Store(hn::IfThenElseZero(hn::Gt(least, zero), sum), 0, 65535, limits.sum_min + i);
    // A row: the tangent of its margin at the block's f, slope * f - drop.
    const auto by_margin = hn::Gt(needed, missing_estimate);
    const V row_reach = hn::Mul(f, hn::Set(d_, question_.reach));
    const V row_across2 = hn::Mul(error2, hn::Sub(hn::Mul(row_reach, row_reach), along2));
    const V row_margin = hn::Sqrt(hn::Max(hn::MulAdd(table_error2, f2, row_across2), zero));
    const auto curved = hn::Gt(row_across2, zero);
    const V drop = hn::IfThenElseZero(curved, hn::Div(hn::Mul(error2, along2), row_margin));
    const V rise = hn::IfThenElse(curved, hn::Add(row_margin, drop), hn::Mul(table_error, f));
    const V slope_times_f = hn::IfThenElseZero(by_margin, rise);
    const V wanted = hn::IfThenElse(by_margin, hn::Add(missing, drop), missing_estimate);
    // (step * sum + offset + slope) f >= wanted, scaled.
    const V row_offset = hn::MulAdd(slope_times_f, inverse, offset);
    Store(hn::Ceil(hn::Mul(row_offset, hn::Set(d_, scale_))), -32767, 32767, limits.sum_offset + i);
    const V product_scale = hn::Set(d_, scale_ * kCodeFactorMax / 256.0f);
    Store(hn::Mul(hn::Mul(wanted, inverse), product_scale), 0, 65535, limits.product_min + i);
  }

 private:
  HWY_INLINE static void Store(V x, float low, float high, int32_t* to) {
    const V clamped = hn::Min(hn::Max(x, hn::Set(d_, low)), hn::Set(d_, high));
    const hn::RebindToSigned<F> di;
    hn::StoreU(hn::ConvertTo(di, clamped), di, to);
  }

  static constexpr F d_{};
  const CodeQuestion& question_;
  const float scale_;
  const float inverse_step_;
};

void MakeCodeLimits(const CodeQuestion& question, const CodeBlocks& blocks, size_t code_bytes,
                    const CodeLimits& limits) {
  const LimitMaker::F df;
  const LimitMaker maker(question, code_bytes);
  for (size_t i = 0; i < blocks.count; i += hn::Lanes(df)) {
    const size_t n = blocks.count - i;
    maker.Make(LoadFirst(df, blocks.base + i, n), LoadFirst(df, blocks.radius + i, n),
               LoadFirst(df, blocks.factor + i, n), limits, i);
  }
}

size_t ListGroupsInReach(const float* base, const float* radius, size_t count, float length,
                         float floor, uint32_t first, uint32_t* out) {
  const hn::CappedTag<float, kCodeLimitsSlack> df;
  const hn::RebindToUnsigned<decltype(df)> du;
  const auto lengths = hn::Set(df, length);
  const auto floors = hn::Set(df, floor);
  uint32_t* end = out;
  for (size_t i = 0; i < count; i += hn::Lanes(df)) {
    const size_t n = std::min(hn::Lanes(df), count - i);
    const auto bound =
        hn::MulAdd(lengths, LoadFirst(df, radius + i, n), LoadFirst(df, base + i, n));
    const auto reached = hn::And(hn::FirstN(df, n), hn::Ge(bound, floors));
    if (hn::AllFalse(df, reached)) continue;
    const auto number = hn::Iota(du, static_cast<uint32_t>(first + i));
    end += hn::CompressStore(number, hn::RebindMask(du, reached), du, end);
  }
  return static_cast<size_t>(end - out);
}

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE CodeHit* ScanBlock(const uint8_t* block, size_t code_bytes, const uint8_t* tables,
                              const CodeLimits& limits, size_t b, CodeHit* hits) {
  for (size_t r = 0; r < kCodeBlockRows; ++r) {
    const uint8_t* table = tables;
    uint32_t sum = 0;
    for (size_t p = 0; p < code_bytes; ++p, table += 2 * kNibbleTableBytes) {
      const uint8_t code = block[p * kCodeBlockRows + r];
      sum += table[code & 15] + table[kNibbleTableBytes + (code >> 4)];
    }
    if (static_cast<int32_t>(sum) < limits.sum_min[b]) continue;
    const auto scaled = static_cast<int32_t>(sum * CodeSumScale(code_bytes)) + limits.sum_offset[b];
    const int32_t factor = block[code_bytes * kCodeBlockRows + r];
    if ((std::max(scaled, 0) * factor) / 256 < limits.product_min[b]) continue;
    *hits++ = {static_cast<uint16_t>(b), static_cast<uint16_t>(r), sum};
  }
  return hits;
}

#else

// Code bytes whose table entries (at most 15 each, two per byte) add up within eight bits.
constexpr size_t kBytesPerSum = 8;

using ByteTag = hn::CappedTag<uint8_t, kCodeBlockRows>;
using WordTag = hn::Repartition<uint16_t, ByteTag>;

// Sums the tables of `bytes` (at most kBytesPerSum) code bytes for the rows of one vector. kBytes
// != 0 fixes the number of bytes so that the loop unrolls.
template <size_t kBytes>
HWY_INLINE hn::VFromD<ByteTag> SumTables(const uint8_t* codes, size_t bytes,
                                         const uint8_t* tables) {
  const ByteTag d;
  const auto low_mask = hn::Set(d, 0x0F);
  auto low_sum = hn::Zero(d), high_sum = hn::Zero(d);
  const size_t n = kBytes == 0 ? bytes : kBytes;
  for (size_t p = 0; p < n; ++p) {
    const auto code = hn::LoadU(d, codes + p * kCodeBlockRows);
    const auto low = hn::And(code, low_mask);
    const auto high = hn::And(hn::ShiftRight<4>(code), low_mask);
    const uint8_t* table = tables + 2 * p * kNibbleTableBytes;
    const auto low_table = hn::LoadDup128(d, table);
    const auto high_table = hn::LoadDup128(d, table + kNibbleTableBytes);
    low_sum = hn::Add(low_sum, hn::TableLookupBytes(low_table, low));
    high_sum = hn::Add(high_sum, hn::TableLookupBytes(high_table, high));
  }
  return hn::Add(low_sum, high_sum);
}

// The limits of one block on words: `factors` in the high byte of each.
class WordLimits {
 public:
  WordLimits(const CodeLimits& limits, size_t b, size_t code_bytes)
      : scale_(hn::Set(d_, static_cast<uint16_t>(CodeSumScale(code_bytes)))),
        raise_(hn::Set(d_, static_cast<uint16_t>(std::max(limits.sum_offset[b], 0)))),
        lower_(hn::Set(d_, static_cast<uint16_t>(std::max(-limits.sum_offset[b], 0)))),
        product_min_(hn::Set(d_, static_cast<uint16_t>(limits.product_min[b]))) {}

  // All bits of the words within the limit are set.
  HWY_INLINE hn::VFromD<WordTag> Within(hn::VFromD<WordTag> sums,
                                        hn::VFromD<WordTag> factors) const {
    const auto scaled = hn::Add(hn::Mul(sums, scale_), raise_);
    const auto product = hn::MulHigh(hn::SaturatedSub(scaled, lower_), factors);
    return hn::VecFromMask(d_, hn::Eq(hn::Max(product, product_min_), product));
  }

 private:
  static constexpr WordTag d_{};
  hn::VFromD<WordTag> scale_, raise_, lower_, product_min_;
};

// Codes of at most eight bytes: sums fit eight bits, so the block's limit is tested before anything
// is widened.
template <size_t kBytes>
HWY_INLINE CodeHit* ScanNarrowBlock(const uint8_t* block, size_t code_bytes, const uint8_t* tables,
                                    const CodeLimits& limits, size_t b, CodeHit* hits) {
  const ByteTag d;
  const WordTag d16;
  const size_t lanes = hn::Lanes(d);
  const auto sum_min = hn::Set(d, static_cast<uint8_t>(limits.sum_min[b]));
  for (size_t r = 0; r < kCodeBlockRows; r += lanes) {
    const auto sums = SumTables<kBytes>(block + r, code_bytes, tables);
    const auto reached = hn::Eq(hn::Max(sums, sum_min), sums);
    if (hn::AllFalse(d, reached)) continue;
    const WordLimits row_limits(limits, b, code_bytes);
    const auto words = hn::BitCast(d16, sums);
    const auto factors = hn::BitCast(d16, hn::LoadU(d, block + code_bytes * kCodeBlockRows + r));
    const auto even =
        row_limits.Within(hn::And(words, hn::Set(d16, 0x00FF)), hn::ShiftLeft<8>(factors));
    const auto odd =
        row_limits.Within(hn::ShiftRight<8>(words), hn::And(factors, hn::Set(d16, 0xFF00)));
    const auto within = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, even));
    const auto hit = hn::And(reached, hn::MaskFromVec(within));
    if (HWY_LIKELY(hn::AllFalse(d, hit))) continue;
    HWY_ALIGN uint8_t lane_sums[kCodeBlockRows];
    uint64_t bits = 0;
    hn::Store(sums, d, lane_sums);
    hn::StoreMaskBits(d, hit, reinterpret_cast<uint8_t*>(&bits));
    for (; bits != 0; bits &= bits - 1) {
      const size_t lane = static_cast<size_t>(std::countr_zero(bits));
      *hits++ = {static_cast<uint16_t>(b), static_cast<uint16_t>(r + lane), lane_sums[lane]};
    }
  }
  return hits;
}

// Longer codes: partial sums of eight bytes are widened and added. Codes are a power of two of
// bytes, so longer ones consist of whole parts.
HWY_INLINE CodeHit* ScanWideBlock(const uint8_t* block, size_t code_bytes, const uint8_t* tables,
                                  const CodeLimits& limits, size_t b, CodeHit* hits) {
  const ByteTag d;
  const WordTag d16;
  const size_t lanes = hn::Lanes(d);
  const auto sum_min = hn::Set(d16, static_cast<uint16_t>(limits.sum_min[b]));
  const auto low_byte = hn::Set(d16, 0x00FF);
  for (size_t r = 0; r < kCodeBlockRows; r += lanes) {
    auto even = hn::Zero(d16);
    auto odd = hn::Zero(d16);
    for (size_t p = 0; p < code_bytes; p += kBytesPerSum) {
      const auto sum =
          hn::BitCast(d16, SumTables<kBytesPerSum>(block + p * kCodeBlockRows + r, kBytesPerSum,
                                                   tables + 2 * p * kNibbleTableBytes));
      even = hn::Add(even, hn::And(sum, low_byte));
      odd = hn::Add(odd, hn::ShiftRight<8>(sum));
    }
    const auto even_reached = hn::Eq(hn::Max(even, sum_min), even);
    const auto odd_reached = hn::Eq(hn::Max(odd, sum_min), odd);
    if (hn::AllFalse(d16, hn::Or(even_reached, odd_reached))) continue;
    const WordLimits row_limits(limits, b, code_bytes);
    const auto factors = hn::BitCast(d16, hn::LoadU(d, block + code_bytes * kCodeBlockRows + r));
    const auto even_hit =
        hn::And(even_reached, hn::MaskFromVec(row_limits.Within(even, hn::ShiftLeft<8>(factors))));
    const auto odd_hit = hn::And(
        odd_reached, hn::MaskFromVec(row_limits.Within(odd, hn::AndNot(low_byte, factors))));
    if (HWY_LIKELY(hn::AllFalse(d16, hn::Or(even_hit, odd_hit)))) continue;
    HWY_ALIGN uint16_t sums[2][kCodeBlockRows / 2];
    HWY_ALIGN uint16_t hit[2][kCodeBlockRows / 2];
    hn::Store(even, d16, sums[0]);
    hn::Store(odd, d16, sums[1]);
    hn::Store(hn::VecFromMask(d16, even_hit), d16, hit[0]);
    hn::Store(hn::VecFromMask(d16, odd_hit), d16, hit[1]);
    for (size_t lane = 0; lane < lanes; ++lane) {
      if (hit[lane % 2][lane / 2] == 0) continue;
      *hits++ = {static_cast<uint16_t>(b), static_cast<uint16_t>(r + lane),
                 sums[lane % 2][lane / 2]};
    }
  }
  return hits;
}

HWY_INLINE CodeHit* ScanBlock(const uint8_t* block, size_t code_bytes, const uint8_t* tables,
                              const CodeLimits& limits, size_t b, CodeHit* hits) {
  if (limits.sum_min[b] > static_cast<int32_t>(30 * code_bytes)) return hits;
  if (code_bytes == kBytesPerSum) {
    return ScanNarrowBlock<kBytesPerSum>(block, code_bytes, tables, limits, b, hits);
  }
  if (code_bytes < kBytesPerSum) {
    return ScanNarrowBlock<0>(block, code_bytes, tables, limits, b, hits);
  }
  return ScanWideBlock(block, code_bytes, tables, limits, b, hits);
}

#endif  // HWY_TARGET == HWY_SCALAR

size_t ScanCodeBlocks(const CodeBlocks& blocks, const CodeLimits& limits, size_t code_bytes,
                      const uint8_t* tables, std::span<const uint8_t* const> ahead, CodeHit* hits) {
  CodeHit* out = hits;
  for (size_t b = 0; b < blocks.count; ++b) {
    if (b < ahead.size()) PrefetchBytes(ahead[b], (code_bytes + 1) * kCodeBlockRows);
    out = ScanBlock(blocks.codes[b], code_bytes, tables, limits, b, out);
  }
  return static_cast<size_t>(out - hits);
}

}  // namespace HWY_NAMESPACE
}  // namespace attic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(MakeCodeLimits);
HWY_EXPORT(ListGroupsInReach);
HWY_EXPORT(ScanCodeBlocks);

void MakeCodeLimits(const CodeQuestion& question, const CodeBlocks& blocks, size_t code_bytes,
                    const CodeLimits& limits) {
  HWY_DYNAMIC_DISPATCH(MakeCodeLimits)(question, blocks, code_bytes, limits);
}

size_t ListGroupsInReach(const float* base, const float* radius, size_t count, float length,
                         float floor, uint32_t first, uint32_t* out) {
  return HWY_DYNAMIC_DISPATCH(ListGroupsInReach)(base, radius, count, length, floor, first, out);
}

size_t ScanCodeBlocks(const CodeBlocks& blocks, const CodeLimits& limits, size_t code_bytes,
                      const uint8_t* tables, std::span<const uint8_t* const> ahead, CodeHit* hits) {
  return HWY_DYNAMIC_DISPATCH(ScanCodeBlocks)(blocks, limits, code_bytes, tables, ahead, hits);
}

}  // namespace attic
#endif  // HWY_ONCE
