#include "server/index/index_kernels.h"

#include <algorithm>
#include <bit>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/index/index_kernels.cc"
#include "hwy/foreach_target.h"
// Highway must come after foreach_target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

size_t ArgMaxSum(const float* a, const float* b, size_t count, float& best) {
  const hn::ScalableTag<float> df;
  const hn::RebindToSigned<decltype(df)> di;
  const size_t lanes = hn::Lanes(df);
  float best_value = a[0] + b[0];
  size_t best_index = 0;
  size_t i = 0;
  if (count >= lanes) {
    auto values = hn::Add(hn::LoadU(df, a), hn::LoadU(df, b));
    auto at = hn::Iota(di, 0);
    auto next = at;
    const auto step = hn::Set(di, static_cast<int32_t>(lanes));
    for (i = lanes; i + lanes <= count; i += lanes) {
      next = hn::Add(next, step);
      const auto sum = hn::Add(hn::LoadU(df, a + i), hn::LoadU(df, b + i));
      const auto better = hn::Gt(sum, values);
      values = hn::IfThenElse(better, sum, values);
      at = hn::IfThenElse(hn::RebindMask(di, better), next, at);
    }
    HWY_ALIGN float lane_values[HWY_MAX_BYTES / sizeof(float)];
    HWY_ALIGN int32_t lane_at[HWY_MAX_BYTES / sizeof(int32_t)];
    hn::Store(values, df, lane_values);
    hn::Store(at, di, lane_at);
    for (size_t lane = 0; lane < lanes; ++lane) {
      if (lane_values[lane] > best_value) {
        best_value = lane_values[lane];
        best_index = static_cast<size_t>(lane_at[lane]);
      }
    }
  }
  for (; i < count; ++i) {
    if (a[i] + b[i] > best_value) {
      best_value = a[i] + b[i];
      best_index = i;
    }
  }
  best = best_value;
  return best_index;
}

#if HWY_TARGET == HWY_SCALAR

size_t ScanCodeBlocks(const CodeBlock* blocks, size_t block_count, size_t code_bytes,
                      CodeHit* hits) {
  CodeHit* out = hits;
  for (size_t b = 0; b < block_count; ++b) {
    for (size_t r = 0; r < kCodeBlockRows; ++r) {
      const uint8_t* table = blocks[b].tables;
      uint32_t sum = 0;
      for (size_t p = 0; p < code_bytes; ++p, table += 2 * kNibbleTableBytes) {
        const uint8_t code = blocks[b].codes[p * kCodeBlockRows + r];
        sum += table[code & 15] + table[kNibbleTableBytes + (code >> 4)];
      }
      if (sum < blocks[b].threshold) continue;
      *out++ = {static_cast<uint16_t>(b), static_cast<uint16_t>(r), sum};
    }
  }
  return static_cast<size_t>(out - hits);
}

#else

// Code bytes whose table entries (at most 15 each, two per byte) add up within eight bits.
constexpr size_t kBytesPerSum = 8;

// Sums the tables of `bytes` (at most kBytesPerSum) code bytes for the rows of one vector. kBytes
// != 0 fixes the number of bytes so that the loop unrolls.
template <size_t kBytes, class D>
HWY_INLINE hn::VFromD<D> SumTables(D d, const uint8_t* codes, size_t bytes, const uint8_t* tables) {
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

// Codes of at most eight bytes: sums fit eight bits, so the threshold is tested before anything is
// widened.
template <size_t kBytes>
HWY_INLINE CodeHit* ScanNarrowBlock(const CodeBlock& block, uint16_t b, size_t code_bytes,
                                    CodeHit* hits) {
  const hn::CappedTag<uint8_t, kCodeBlockRows> d;
  const size_t lanes = hn::Lanes(d);
  if (block.threshold > 30 * code_bytes) return hits;
  const auto limit = hn::Set(d, static_cast<uint8_t>(block.threshold));
  for (size_t r = 0; r < kCodeBlockRows; r += lanes) {
    const auto sums = SumTables<kBytes>(d, block.codes + r, code_bytes, block.tables);
    const auto reached = hn::Eq(hn::Max(sums, limit), sums);
    if (HWY_LIKELY(hn::AllFalse(d, reached))) continue;
    HWY_ALIGN uint8_t lane_sums[kCodeBlockRows];
    uint64_t bits = 0;
    hn::Store(sums, d, lane_sums);
    hn::StoreMaskBits(d, reached, reinterpret_cast<uint8_t*>(&bits));
    for (; bits != 0; bits &= bits - 1) {
      const size_t lane = static_cast<size_t>(std::countr_zero(bits));
      *hits++ = {b, static_cast<uint16_t>(r + lane), lane_sums[lane]};
    }
  }
  return hits;
}

// Longer codes: partial sums of eight bytes are widened and added. Codes are a power of two of
// bytes, so longer ones consist of whole parts.
HWY_INLINE CodeHit* ScanWideBlock(const CodeBlock& block, uint16_t b, size_t code_bytes,
                                  CodeHit* hits) {
  const hn::CappedTag<uint8_t, kCodeBlockRows> d;
  const hn::Repartition<uint16_t, decltype(d)> d16;
  const size_t lanes = hn::Lanes(d);
  if (block.threshold > 30 * code_bytes) return hits;
  const auto limit = hn::Set(d16, static_cast<uint16_t>(block.threshold));
  const auto low_byte = hn::Set(d16, 0x00FF);
  for (size_t r = 0; r < kCodeBlockRows; r += lanes) {
    auto even = hn::Zero(d16);
    auto odd = hn::Zero(d16);
    for (size_t p = 0; p < code_bytes; p += kBytesPerSum) {
      const auto sums =
          SumTables<kBytesPerSum>(d, block.codes + p * kCodeBlockRows + r, kBytesPerSum,
                                  block.tables + 2 * p * kNibbleTableBytes);
      const auto sum = hn::BitCast(d16, sums);
      even = hn::Add(even, hn::And(sum, low_byte));
      odd = hn::Add(odd, hn::ShiftRight<8>(sum));
    }
    const auto even_reached = hn::Eq(hn::Max(even, limit), even);
    const auto odd_reached = hn::Eq(hn::Max(odd, limit), odd);
    if (HWY_LIKELY(hn::AllFalse(d16, hn::Or(even_reached, odd_reached)))) continue;
    HWY_ALIGN uint16_t sums[2][kCodeBlockRows / 2];
    hn::Store(even, d16, sums[0]);
    hn::Store(odd, d16, sums[1]);
    for (size_t lane = 0; lane < lanes; ++lane) {
      const uint16_t sum = sums[lane % 2][lane / 2];
      if (sum >= block.threshold) *hits++ = {b, static_cast<uint16_t>(r + lane), sum};
    }
  }
  return hits;
}

size_t ScanCodeBlocks(const CodeBlock* blocks, size_t block_count, size_t code_bytes,
                      CodeHit* hits) {
  CodeHit* out = hits;
  for (size_t b = 0; b < block_count; ++b) {
    const auto index = static_cast<uint16_t>(b);
    if (code_bytes == kBytesPerSum) {
      out = ScanNarrowBlock<kBytesPerSum>(blocks[b], index, code_bytes, out);
    } else if (code_bytes < kBytesPerSum) {
      out = ScanNarrowBlock<0>(blocks[b], index, code_bytes, out);
    } else {
      out = ScanWideBlock(blocks[b], index, code_bytes, out);
    }
  }
  return static_cast<size_t>(out - hits);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace attic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(ArgMaxSum);
HWY_EXPORT(ScanCodeBlocks);

size_t ArgMaxSum(const float* a, const float* b, size_t count, float& best) {
  return HWY_DYNAMIC_DISPATCH(ArgMaxSum)(a, b, count, best);
}

size_t ScanCodeBlocks(const CodeBlock* blocks, size_t block_count, size_t code_bytes,
                      CodeHit* hits) {
  return HWY_DYNAMIC_DISPATCH(ScanCodeBlocks)(blocks, block_count, code_bytes, hits);
}

}  // namespace attic
#endif  // HWY_ONCE
