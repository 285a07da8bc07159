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

size_t ScanCodeBlocks(const uint8_t* blocks, size_t block_count, size_t code_bytes,
                      const uint8_t* tables, size_t query_count, const uint16_t* thresholds,
                      CodeHit* hits) {
  const size_t table_bytes = 2 * code_bytes * kNibbleTableBytes;
  CodeHit* out = hits;
  for (size_t b = 0; b < block_count; ++b) {
    for (size_t g = 0; g < query_count; ++g) {
      for (size_t r = 0; r < kCodeBlockRows; ++r) {
        const uint8_t* table = tables + g * table_bytes;
        uint16_t sum = 0;
        for (size_t p = 0; p < code_bytes; ++p, table += 2 * kNibbleTableBytes) {
          const uint8_t code = blocks[(b * code_bytes + p) * kCodeBlockRows + r];
          sum += table[code & 15] + table[kNibbleTableBytes + (code >> 4)];
        }
        if (sum < thresholds[g * block_count + b]) continue;
        const uint32_t row = static_cast<uint32_t>(b * kCodeBlockRows + r);
        *out++ = {row, static_cast<uint16_t>(g), sum};
      }
    }
  }
  return static_cast<size_t>(out - hits);
}

#else

// Code bytes whose table entries (at most 15 each, two per byte) add up within eight bits.
constexpr size_t kBytesPerSum = 8;
constexpr size_t kQueriesTogether = 4;  // their sums stay in registers

// Sums the tables of `bytes` (at most kBytesPerSum) code bytes for the rows of one vector, for
// kQueries queries whose tables lie table_bytes apart. kBytes != 0 fixes the number of bytes so
// that the loop unrolls.
template <size_t kBytes, size_t kQueries, class D>
HWY_INLINE void SumTables(D d, const uint8_t* codes, size_t bytes, const uint8_t* tables,
                          size_t table_bytes, hn::VFromD<D> (&sums)[kQueries]) {
  const auto low_mask = hn::Set(d, 0x0F);
  for (size_t g = 0; g < kQueries; ++g) sums[g] = hn::Zero(d);
  const size_t n = kBytes == 0 ? bytes : kBytes;
  for (size_t p = 0; p < n; ++p) {
    const auto code = hn::LoadU(d, codes + p * kCodeBlockRows);
    const auto low = hn::And(code, low_mask);
    const auto high = hn::ShiftRight<4>(code);
    HWY_UNROLL(4)
    for (size_t g = 0; g < kQueries; ++g) {
      const uint8_t* table = tables + g * table_bytes + 2 * p * kNibbleTableBytes;
      const auto low_table = hn::LoadDup128(d, table);
      const auto high_table = hn::LoadDup128(d, table + kNibbleTableBytes);
      sums[g] = hn::Add(sums[g], hn::Add(hn::TableLookupBytes(low_table, low),
                                         hn::TableLookupBytes(high_table, high)));
    }
  }
}

// What a scan of consecutive queries needs.
struct CodeScan {
  const uint8_t* blocks;
  size_t block_count;
  size_t code_bytes;
  const uint8_t* tables;       // of the first query
  const uint16_t* thresholds;  // of the first query
  uint16_t first_query;

  size_t table_bytes() const { return 2 * code_bytes * kNibbleTableBytes; }
  size_t sum_max() const { return 30 * code_bytes; }
};

// One block of codes of at most eight bytes against kQueries queries: sums fit eight bits, so the
// threshold is tested before anything is widened.
template <size_t kBytes, size_t kQueries>
HWY_INLINE CodeHit* ScanNarrowBlock(const CodeScan& scan, size_t b, CodeHit* hits) {
  const hn::CappedTag<uint8_t, kCodeBlockRows> d;
  using V = hn::VFromD<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  V limits[kQueries];
  bool reachable = false;
  for (size_t g = 0; g < kQueries; ++g) {
    const size_t threshold = scan.thresholds[g * scan.block_count + b];
    reachable |= threshold <= scan.sum_max();
    limits[g] = hn::Set(d, static_cast<uint8_t>(std::min<size_t>(threshold, 255)));
  }
  if (!reachable) return hits;
  const uint8_t* block = scan.blocks + b * scan.code_bytes * kCodeBlockRows;
  for (size_t r = 0; r < kCodeBlockRows; r += lanes) {
    V sums[kQueries];
    SumTables<kBytes>(d, block + r, scan.code_bytes, scan.tables, scan.table_bytes(), sums);
    for (size_t g = 0; g < kQueries; ++g) {
      const auto reached = hn::Eq(hn::Max(sums[g], limits[g]), sums[g]);
      if (HWY_LIKELY(hn::AllFalse(d, reached))) continue;
      HWY_ALIGN uint8_t lane_sums[kCodeBlockRows];
      uint64_t bits = 0;
      hn::Store(sums[g], d, lane_sums);
      hn::StoreMaskBits(d, reached, reinterpret_cast<uint8_t*>(&bits));
      for (; bits != 0; bits &= bits - 1) {
        const size_t lane = static_cast<size_t>(std::countr_zero(bits));
        *hits++ = {static_cast<uint32_t>(b * kCodeBlockRows + r + lane),
                   static_cast<uint16_t>(scan.first_query + g), lane_sums[lane]};
      }
    }
  }
  return hits;
}

// Longer codes, one query: partial sums of eight bytes are widened and added.
CodeHit* ScanWideBlock(const CodeScan& scan, size_t b, CodeHit* hits) {
  const hn::CappedTag<uint8_t, kCodeBlockRows> d;
  const hn::Repartition<uint16_t, decltype(d)> d16;
  const size_t lanes = hn::Lanes(d);
  const uint16_t threshold = scan.thresholds[b];
  if (threshold > scan.sum_max()) return hits;
  const auto limit = hn::Set(d16, threshold);
  const auto low_byte = hn::Set(d16, 0x00FF);
  const uint8_t* block = scan.blocks + b * scan.code_bytes * kCodeBlockRows;
  for (size_t r = 0; r < kCodeBlockRows; r += lanes) {
    auto even = hn::Zero(d16);
    auto odd = hn::Zero(d16);
    // Codes are a power of two of bytes, so longer ones consist of whole parts.
    for (size_t p = 0; p < scan.code_bytes; p += kBytesPerSum) {
      hn::VFromD<decltype(d)> sums[1];
      SumTables<kBytesPerSum>(d, block + p * kCodeBlockRows + r, kBytesPerSum,
                              scan.tables + 2 * p * kNibbleTableBytes, scan.table_bytes(), sums);
      const auto sum = hn::BitCast(d16, sums[0]);
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
      const auto row = static_cast<uint32_t>(b * kCodeBlockRows + r + lane);
      if (sum >= threshold) *hits++ = {row, scan.first_query, sum};
    }
  }
  return hits;
}

template <size_t kQueries>
HWY_NOINLINE CodeHit* ScanNarrow(const CodeScan& scan, CodeHit* hits) {
  for (size_t b = 0; b < scan.block_count; ++b) {
    hits = scan.code_bytes == kBytesPerSum ? ScanNarrowBlock<kBytesPerSum, kQueries>(scan, b, hits)
                                           : ScanNarrowBlock<0, kQueries>(scan, b, hits);
  }
  return hits;
}

size_t ScanCodeBlocks(const uint8_t* blocks, size_t block_count, size_t code_bytes,
                      const uint8_t* tables, size_t query_count, const uint16_t* thresholds,
                      CodeHit* hits) {
  CodeScan scan{blocks, block_count, code_bytes, tables, thresholds, 0};
  CodeHit* out = hits;
  for (size_t first = 0; first < query_count;) {
    scan.tables = tables + first * scan.table_bytes();
    scan.thresholds = thresholds + first * block_count;
    scan.first_query = static_cast<uint16_t>(first);
    if (code_bytes > kBytesPerSum) {
      for (size_t b = 0; b < block_count; ++b) out = ScanWideBlock(scan, b, out);
      first += 1;
    } else if (query_count - first >= kQueriesTogether) {
      out = ScanNarrow<kQueriesTogether>(scan, out);
      first += kQueriesTogether;
    } else if (query_count - first >= 2) {
      out = ScanNarrow<2>(scan, out);
      first += 2;
    } else {
      out = ScanNarrow<1>(scan, out);
      first += 1;
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

size_t ScanCodeBlocks(const uint8_t* blocks, size_t block_count, size_t code_bytes,
                      const uint8_t* tables, size_t query_count, const uint16_t* thresholds,
                      CodeHit* hits) {
  return HWY_DYNAMIC_DISPATCH(ScanCodeBlocks)(blocks, block_count, code_bytes, tables, query_count,
                                              thresholds, hits);
}

}  // namespace attic
#endif  // HWY_ONCE
