#include "api/types.h"

#include "gtest/gtest.h"

namespace attic {
namespace {

TEST(TypesTest, GroupIsQueryHeadsPerKvHead) {
  Fingerprint fingerprint;
  EXPECT_EQ(fingerprint.group(), 0u);
  fingerprint.q_heads = 32;
  fingerprint.kv_heads = 8;
  EXPECT_EQ(fingerprint.group(), 4u);
}

TEST(TypesTest, FingerprintsDifferInAnyField) {
  const Fingerprint base = {"model", "1", 2, 8, 4, 64, 64, ElementType::kBFloat16, 0.125f, "none"};
  EXPECT_EQ(base, Fingerprint(base));
  Fingerprint other = base;
  other.revision.append("b");
  EXPECT_NE(base, other);
  other = base;
  other.element_type = ElementType::kFloat16;
  EXPECT_NE(base, other);
  other = base;
  other.logit_scale = 0.25f;
  EXPECT_NE(base, other);
  other = base;
  other.position_encoding.append(" rope");
  EXPECT_NE(base, other);
}

TEST(TypesTest, ReadStatisticsAddEveryField) {
  ReadStatistics sum = {1, 2, 3, 4, 5, 6, 7};
  sum += {10, 20, 30, 40, 50, 60, 70};
  EXPECT_EQ(sum.tokens, 11u);
  EXPECT_EQ(sum.exact_tokens, 22u);
  EXPECT_EQ(sum.estimated_clusters, 33u);
  EXPECT_EQ(sum.estimated_super_clusters, 44u);
  EXPECT_EQ(sum.graph_visits, 55u);
  EXPECT_EQ(sum.bytes_read, 66u);
  EXPECT_EQ(sum.disk_bytes_read, 77u);
  // A field added to the structure and not to the operator would change its size first.
  EXPECT_EQ(sizeof(ReadStatistics), 7 * sizeof(uint64_t));
}

TEST(TypesTest, MemoryUseAddsEveryFieldAndTotals) {
  MemoryUse sum = {1, 2, 3, 4, 5, 6};
  sum += {10, 20, 30, 40, 50, 60};
  EXPECT_EQ(sum.vectors_bytes, 11u);
  EXPECT_EQ(sum.tail_bytes, 22u);
  EXPECT_EQ(sum.summaries_bytes, 33u);
  EXPECT_EQ(sum.codes_bytes, 44u);
  EXPECT_EQ(sum.graph_bytes, 55u);
  EXPECT_EQ(sum.evicted_bytes, 66u);
  EXPECT_EQ(sum.total(), 165u);
  EXPECT_EQ(sizeof(MemoryUse), 6 * sizeof(uint64_t));
}

TEST(TypesTest, DefaultRangeIsEverything) {
  const PositionRange range;
  EXPECT_EQ(range.begin, 0);
  EXPECT_EQ(range.end, std::numeric_limits<int64_t>::max());
}

}  // namespace
}  // namespace attic
