#include "base/byte_codec.h"

#include <gtest/gtest.h>

#include <random>

namespace attic {
namespace {

std::string Written() {
  ByteWriter writer;
  writer.Put<uint32_t>(7);
  writer.Put(-2.5);
  writer.PutArray(std::vector<float>{1, 2, 3});
  writer.PutText("text");
  writer.PutArray(std::vector<double>{});
  return writer.Take();
}

bool ReadAll(ByteReader reader) {
  const bool same = reader.Get<uint32_t>() == 7 && reader.Get<double>() == -2.5 &&
                    reader.GetArray<float>() == std::vector<float>{1, 2, 3} &&
                    reader.GetText() == "text" && reader.GetArray<double>().empty();
  return same && reader.AtEnd();
}

TEST(ByteCodecTest, ReadsWhatWasWritten) { EXPECT_TRUE(ReadAll(ByteReader(Written()))); }

TEST(ByteCodecTest, NothingShorterOrLongerPasses) {
  const std::string bytes = Written();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string part = bytes.substr(0, size);
    EXPECT_FALSE(ReadAll(ByteReader(part))) << size;
  }
  const std::string longer = bytes + "x";
  EXPECT_FALSE(ReadAll(ByteReader(longer)));
}

TEST(ByteCodecTest, CountsBeyondTheBytesAreNotAllocated) {
  for (const uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 61, ~uint64_t{0}}) {
    ByteWriter writer;
    writer.Put(count);
    writer.Put(1.0);
    ByteReader floats(writer.bytes());
    EXPECT_TRUE(floats.GetArray<float>().empty());
    EXPECT_FALSE(floats.ok());
    ByteReader text(writer.bytes());
    EXPECT_TRUE(text.GetText().empty());
    EXPECT_FALSE(text.ok());
    EXPECT_EQ(text.Get<uint64_t>(), 0u);
  }
}

}  // namespace
}  // namespace attic
