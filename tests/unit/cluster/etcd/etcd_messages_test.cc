#include "server/cluster/etcd/etcd_messages.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace attic {
namespace {

// Few letters, so that strings often have the same beginning, among them the first and last byte.
std::string RandomKey(std::mt19937& random, size_t bytes_max) {
  std::string key(1 + random() % bytes_max, '\0');
  for (char& c : key) c = std::string("\0a\xfe\xff", 4)[random() % 4];
  return key;
}

TEST(EtcdMessagesTest, TheEndOfAPrefixDividesKeys) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int i = 0; i < 100'000; ++i) {
    const std::string prefix = RandomKey(random, 3);
    const std::string key = RandomKey(random, 5);
    const std::string end = EtcdPrefixEnd(prefix);
    const bool in_range = key >= prefix && (end == std::string(1, '\0') || key < end);
    ASSERT_EQ(in_range, absl::StartsWith(key, prefix))
        << testing::PrintToString(prefix) << " " << testing::PrintToString(key);
  }
}

mvccpb::KeyValue Entry() {
  mvccpb::KeyValue entry;
  entry.set_key("p/k");
  entry.set_value("v");
  entry.set_create_revision(3);
  entry.set_mod_revision(5);
  entry.set_version(2);
  entry.set_lease(7);
  return entry;
}

absl::StatusCode CodeOf(mvccpb::KeyValue entry) { return FromWire("p/", entry).status().code(); }

TEST(EtcdMessagesTest, TakesEntriesThatCanBe) {
  mvccpb::KeyValue wire = Entry();
  const auto entry = FromWire("p/", wire);
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->key, "p/k");
  EXPECT_EQ(entry->value, "v");
  EXPECT_EQ(entry->create_revision, 3);
  EXPECT_EQ(entry->mod_revision, 5);
  EXPECT_EQ(entry->version, 2);
  EXPECT_EQ(entry->lease, 7);
  wire = Entry();
  wire.set_key("other");
  EXPECT_EQ(CodeOf(wire), absl::StatusCode::kInternal);
  wire = Entry();
  wire.set_create_revision(0);
  EXPECT_EQ(CodeOf(wire), absl::StatusCode::kInternal);
  wire = Entry();
  wire.set_mod_revision(2);
  EXPECT_EQ(CodeOf(wire), absl::StatusCode::kInternal);
  wire = Entry();
  wire.set_version(-1);
  EXPECT_EQ(CodeOf(wire), absl::StatusCode::kInternal);
}

TEST(EtcdMessagesTest, TakesEventsThatCanBe) {
  mvccpb::Event put;
  *put.mutable_kv() = Entry();
  mvccpb::Event copy = put;
  EXPECT_TRUE(FromWire("p/", 5, copy).ok());
  copy = put;
  EXPECT_EQ(FromWire("p/", 6, copy).status().code(), absl::StatusCode::kInternal);
  mvccpb::Event deletion;
  deletion.set_type(mvccpb::Event::DELETE);
  deletion.mutable_kv()->set_key("p/k");
  deletion.mutable_kv()->set_mod_revision(6);
  copy = deletion;
  const auto event = FromWire("p/", 5, copy);
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_TRUE(event->deleted);
  EXPECT_EQ(event->entry.mod_revision, 6);
  copy = deletion;
  EXPECT_EQ(FromWire("q/", 5, copy).status().code(), absl::StatusCode::kInternal);
  copy = put;
  copy.set_type(static_cast<mvccpb::Event::EventType>(7));
  EXPECT_EQ(FromWire("p/", 5, copy).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(RevisionOf(etcdserverpb::ResponseHeader()).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace attic
