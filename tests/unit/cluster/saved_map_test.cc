#include "server/cluster/saved_map.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "tests/support/temporary_folder.h"

namespace attic {
namespace {

ClusterMap Map(uint64_t epoch) {
  ClusterMap map;
  map.cluster = "test";
  map.epoch = epoch;
  map.replicas_default = 2;
  map.nodes = {{.id = "a", .address = "a:1", .zone = "z", .capacity = 5, .boot_id = "1"},
               {.id = "b", .address = "b:1", .state = NodeState::kDown}};
  map.slots = {{.replicas = {0, 1}, .epoch = 3}, {.replicas = {1}, .incoming = {0}, .epoch = 4}};
  return map;
}

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void Write(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

TEST(SavedMapTest, TheLastOneIsRead) {
  const TemporaryFolder folder;
  auto loaded = LoadMap(folder.path(), "test");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(*loaded, nullptr);
  for (const uint64_t epoch : {7, 9}) {
    ASSERT_TRUE(SaveMap(folder.path(), Map(epoch)).ok());
    loaded = LoadMap(folder.path(), "test");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(**loaded, Map(epoch));
  }
  EXPECT_EQ(LoadMap(folder.path(), "other").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(SavedMapTest, DamageIsFound) {
  const TemporaryFolder folder;
  ASSERT_TRUE(SaveMap(folder.path(), Map(7)).ok());
  const std::string path = folder.file("CLUSTER_MAP");
  const std::string good = Read(path);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x20);
    for (const std::string& content : {damaged, good.substr(0, i)}) {
      Write(path, content);
      EXPECT_EQ(LoadMap(folder.path(), "test").status().code(), absl::StatusCode::kDataLoss) << i;
    }
  }
}

TEST(SavedMapTest, WhatCannotBeSavedIsAnError) {
  EXPECT_FALSE(SaveMap("/nowhere/at/all", Map(7)).ok());
}

}  // namespace
}  // namespace attic
