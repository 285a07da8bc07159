#include "server/storage/cluster_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace attic {
namespace {

constexpr size_t kBlockBytes = 16 << 10;

std::unique_ptr<std::byte[]> Block(uint64_t source, uint32_t cluster) {
  auto block = std::make_unique<std::byte[]>(kBlockBytes);
  std::fill_n(block.get(), kBlockBytes, static_cast<std::byte>(source * 31 + cluster));
  return block;
}

ClusterRows Insert(ClusterCache& cache, uint64_t source, uint32_t cluster) {
  return cache.Insert(source, cluster, Block(source, cluster), kBlockBytes / 4, kBlockBytes);
}

// Returns whether the cluster was there; checks that it is the right one.
bool Find(ClusterCache& cache, uint64_t source, uint32_t cluster) {
  ClusterRows rows;
  if (!cache.Lookup(source, cluster, kBlockBytes / 4, rows)) return false;
  EXPECT_EQ(rows.values, rows.keys + kBlockBytes / 4);
  EXPECT_EQ(std::memcmp(rows.keys, Block(source, cluster).get(), kBlockBytes), 0);
  return true;
}

TEST(ClusterCache, KeepsWhatWasInserted) {
  ClusterCache cache({.bytes_max = 64 * kBlockBytes, .read_threads = 1});
  const uint64_t a = cache.NewSource(), b = cache.NewSource();
  EXPECT_NE(a, b);
  EXPECT_FALSE(Find(cache, a, 1));
  Insert(cache, a, 1);
  Insert(cache, b, 1);
  EXPECT_TRUE(Find(cache, a, 1));
  EXPECT_TRUE(Find(cache, b, 1));
  EXPECT_FALSE(Find(cache, a, 2));
  EXPECT_GE(cache.use().bytes, 2 * kBlockBytes);
  EXPECT_LT(cache.use().bytes, 2 * kBlockBytes + 1024);
}

TEST(ClusterCache, StaysWithinItsCapacity) {
  ClusterCache cache({.bytes_max = 256 * kBlockBytes, .read_threads = 1});
  for (uint32_t i = 0; i < 2000; ++i) Insert(cache, 1, i);
  EXPECT_LE(cache.use().bytes, 256 * kBlockBytes);
  EXPECT_GT(cache.use().bytes, 200 * kBlockBytes);
  cache.SetCapacity(64 * kBlockBytes);
  EXPECT_LE(cache.use().bytes, 64 * kBlockBytes);
  cache.SetCapacity(0);
  EXPECT_EQ(cache.use().bytes, 0u);
  cache.SetCapacity(128 * kBlockBytes);
  Insert(cache, 1, 7);
  EXPECT_TRUE(Find(cache, 1, 7));
}

TEST(ClusterCache, RowsOutliveTheirPlaceAndTheCache) {
  ClusterRows inserted, found;
  {
    ClusterCache cache({.bytes_max = 64 * kBlockBytes, .read_threads = 1});
    inserted = Insert(cache, 1, 1);
    ASSERT_TRUE(cache.Lookup(1, 1, kBlockBytes / 4, found));
    Insert(cache, 1, 1);  // in its place
    cache.SetCapacity(0);
    EXPECT_GE(cache.use().bytes, kBlockBytes);  // what is in use counts
  }
  EXPECT_EQ(found.keys, inserted.keys);
  EXPECT_EQ(std::memcmp(found.keys, Block(1, 1).get(), kBlockBytes), 0);
}

TEST(ClusterCache, WithoutCapacityRowsLiveAsLongAsTheyAreHeld) {
  ClusterCache cache({.bytes_max = 0, .read_threads = 1});
  ClusterRows rows = Insert(cache, 1, 1);
  EXPECT_EQ(std::memcmp(rows.keys, Block(1, 1).get(), kBlockBytes), 0);
  rows = {};
  EXPECT_FALSE(Find(cache, 1, 1));
  EXPECT_EQ(cache.use().bytes, 0u);
}

// What was found again stays, however much is read once.
TEST(ClusterCache, AScanLeavesWhatWasReadAgain) {
  constexpr size_t kCapacity = 2048, kHot = 1024;
  ClusterCache cache({.bytes_max = kCapacity * kBlockBytes, .read_threads = 1});
  for (uint32_t i = 0; i < kHot; ++i) {
    Insert(cache, 1, i);
    EXPECT_TRUE(Find(cache, 1, i));
  }
  for (uint32_t i = 0; i < 10 * kCapacity; ++i) {
    if (!Find(cache, 2, i)) Insert(cache, 2, i);
  }
  size_t left = 0;
  for (uint32_t i = 0; i < kHot; ++i) left += Find(cache, 1, i) ? 1 : 0;
  EXPECT_GT(left, kHot * 9 / 10) << left;
}

TEST(ClusterCache, CountsWhatItIsTold) {
  ClusterCache cache({.bytes_max = kBlockBytes, .read_threads = 1});
  cache.Count(3, 2);
  cache.Count(1, 0);
  cache.CountDiskBytes(100);
  const ClusterCacheUse use = cache.use();
  EXPECT_EQ(use.hits, 4u);
  EXPECT_EQ(use.misses, 2u);
  EXPECT_EQ(use.disk_bytes, 100u);
}

TEST(ClusterCache, ManyThreads) {
  ClusterCache cache({.bytes_max = 64 * kBlockBytes, .read_threads = 1});
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 2000; ++i) {
        const uint32_t cluster = random() % 128;
        if (!Find(cache, 1, cluster)) Insert(cache, 1, cluster);
        if (i % 500 == 0) cache.SetCapacity((32 + random() % 64) * kBlockBytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  cache.SetCapacity(0);
  EXPECT_EQ(cache.use().bytes, 0u);
}

}  // namespace
}  // namespace attic
