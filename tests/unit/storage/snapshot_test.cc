// Snapshots as bytes: what is written is read, in pieces of any size, and nothing else.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "server/storage/segment_file.h"
#include "server/storage/segment_image.h"
#include "server/storage/snapshot_reader.h"
#include "server/storage/snapshot_writer.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"
#include "xxhash.h"

namespace attic {
namespace {

using Items = std::vector<std::pair<SnapshotItemName, std::string>>;

std::string RandomBytes(size_t size, std::mt19937& random) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

Items SomeItems(std::mt19937& random, size_t large) {
  Items items;
  for (const size_t size : {size_t{100}, size_t{0}, size_t{7}, large}) {
    const auto kind = static_cast<SnapshotKind>(1 + items.size());
    items.push_back({{.kind = kind, .layer = 3, .kv_head = 1}, RandomBytes(size, random)});
  }
  return items;
}

std::string Write(const Items& items, uint64_t identity = 5) {
  SnapshotWriter writer(identity);
  std::string bytes = writer.Begin();
  for (const auto& [name, item] : items) {
    writer.StartItem(name, item);
    do {
      const std::string block = writer.NextBlock();
      EXPECT_LE(block.size(), kSnapshotBlockBytesMax);
      bytes += block;
    } while (!writer.ItemDone());
  }
  return bytes + writer.End();
}

absl::StatusOr<Items> Read(std::string_view bytes, size_t piece) {
  Items items;
  SnapshotReader reader([](uint64_t) { return absl::OkStatus(); },
                        [&](const SnapshotItemName& name, std::string item) {
                          items.push_back({name, std::move(item)});
                          return absl::OkStatus();
                        });
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
    const absl::Status read = reader.Read(bytes.substr(0, piece));
    if (!read.ok()) return read;
  }
  const absl::Status finished = reader.Finish();
  if (!finished.ok()) return finished;
  return items;
}

TEST(SnapshotTest, WhatIsWrittenIsRead) {
  std::mt19937 random(1);
  const Items items = SomeItems(random, 3 * kSnapshotPayloadBytesMax);
  const std::string bytes = Write(items);
  for (const size_t piece : {size_t{999}, size_t{1} << 20, bytes.size()}) {
    const absl::StatusOr<Items> read = Read(bytes, piece);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_TRUE(*read == items);
  }
}

TEST(SnapshotTest, EveryFlippedBitAndEveryLengthIsRefused) {
  std::mt19937 random(2);
  const std::string bytes = Write(SomeItems(random, 200));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(Read(damaged, bytes.size()).ok()) << bit;
  }
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_TRUE(absl::IsDataLoss(Read(bytes.substr(0, length), 50).status())) << length;
  }
  EXPECT_TRUE(absl::IsDataLoss(Read(bytes + '\0', 50).status()));
  EXPECT_TRUE(absl::IsDataLoss(Read(bytes + bytes, 50).status()));
}

TEST(SnapshotTest, BlocksOfAnotherSnapshotOrPlaceAreRefused) {
  std::mt19937 random(3);
  const Items items = SomeItems(random, 100);
  const std::string one = Write(items, 5), other = Write(items, 6);
  ASSERT_EQ(one.size(), other.size());
  const size_t first = kSnapshotHeaderBytes, bytes = kSnapshotHeaderBytes + 100;
  EXPECT_FALSE(Read(one.substr(0, first) + other.substr(first), 50).ok());
  // A block twice, and one left out.
  EXPECT_FALSE(Read(one.substr(0, first + bytes) + one.substr(first), 50).ok());
  EXPECT_FALSE(Read(one.substr(0, first) + one.substr(first + bytes), 50).ok());
}

TEST(SnapshotTest, AnotherVersionIsNamed) {
  std::string bytes = Write({});
  EXPECT_TRUE(Read(bytes, 50).ok());
  std::string header = EncodeSnapshotHeader(1);
  header[8] = 2;
  EXPECT_TRUE(absl::IsDataLoss(DecodeSnapshotHeader(header).status()));  // its checksum is wrong
  const uint64_t checksum = XXH3_64bits(header.data(), kSnapshotHeaderBytes - sizeof(uint64_t));
  std::memcpy(header.data() + kSnapshotHeaderBytes - sizeof(checksum), &checksum, sizeof(checksum));
  EXPECT_TRUE(absl::IsFailedPrecondition(DecodeSnapshotHeader(header).status()));
}

TEST(SnapshotTest, TooLargeItemsAreRefusedBeforeTheyAreGathered) {
  std::mt19937 random(4);
  const std::string bytes = Write(SomeItems(random, 3 * kSnapshotPayloadBytesMax));
  uint64_t largest = 0;
  SnapshotReader reader(
      [&](uint64_t item_bytes) {
        largest = std::max(largest, item_bytes);
        return item_bytes > 1000 ? absl::ResourceExhaustedError("memory") : absl::OkStatus();
      },
      [](const SnapshotItemName&, std::string) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::IsResourceExhausted(reader.Read(bytes)));
  EXPECT_TRUE(absl::IsResourceExhausted(reader.Finish()));
  EXPECT_EQ(largest, 3 * kSnapshotPayloadBytesMax);
}

TEST(SegmentImageTest, IsTheBytesOfTheFile) {
  const TemporaryFolder folder;
  for (const ElementType type : {ElementType::kBFloat16, ElementType::kFloat32}) {
    const SampleSegment sample = BuiltSegment({.element_type = type, .begin_position = 500}, 1);
    const std::string path = folder.file(std::to_string(static_cast<int>(type)));
    ASSERT_TRUE(WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors).ok());
    const absl::StatusOr<std::string> image = EncodeSegmentImage(*sample.segment, sample.vectors);
    ASSERT_TRUE(image.ok());
    EXPECT_TRUE(*image == ReadBytes(path));
    const absl::StatusOr<SegmentImage> decoded = DecodeSegmentImage(*image);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ExpectSameSegment(*decoded->segment, *sample.segment);
    EXPECT_TRUE(decoded->vectors.keys == sample.vectors.keys);
    EXPECT_TRUE(decoded->vectors.values == sample.vectors.values);
  }
}

TEST(SegmentImageTest, EveryFlippedByteAndEveryLengthIsRefused) {
  const SampleSegment sample = HandMadeSegment();
  const std::string image = *EncodeSegmentImage(*sample.segment, sample.vectors);
  std::mt19937 random(5);
  for (size_t i = 0; i < image.size(); ++i) {
    std::string damaged = image;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << random() % 8));
    EXPECT_FALSE(DecodeSegmentImage(damaged).ok()) << i;
    EXPECT_FALSE(DecodeSegmentImage(image.substr(0, i)).ok()) << i;
  }
}

}  // namespace
}  // namespace attic
