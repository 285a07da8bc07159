#include "gpu_worker/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>

#include "tests/support/temporary_folder.h"

namespace attic::worker {
namespace {

using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  // Opens a file of these bytes.
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& bytes,
                                                        const SafetensorsLimits& limits = {}) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    return SafetensorsFile::Open(path_, limits);
  }
  // The error of a file with this header and `data_bytes` zeros after it.
  std::string Error(const std::string& header, size_t data_bytes) {
    const auto file = Open(File(header, data_bytes));
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << header;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(path_));
    return std::string(file.status().message());
  }
  static std::string File(const std::string& header, size_t data_bytes) {
    const uint64_t length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes + header + std::string(data_bytes, '\0');
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_.file("model.safetensors");
};

TEST_F(SafetensorsTest, ReadsShapesTypesAndBytes) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
      R"("c":{"dtype":"F16","shape":[0,5],"data_offsets":[26,26]}})";
  std::string bytes = File(header, 26);
  bytes[bytes.size() - 26] = 'x';
  const auto file = Open(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 3u);
  const TensorView& a = (*file)->tensors().at("a");
  EXPECT_EQ(a.shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(a.elements(), 6u);
  EXPECT_EQ(a.data[0], std::byte{'x'});
  EXPECT_EQ((*file)->tensors().at("b").type, ElementType::kBFloat16);
  EXPECT_EQ((*file)->tensors().at("b").elements(), 1u);
  EXPECT_EQ((*file)->tensors().at("c").elements(), 0u);
}

TEST_F(SafetensorsTest, RefusesBadLengths) {
  EXPECT_EQ(SafetensorsFile::Open("/nowhere/model.safetensors").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(folder_.path()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Open("").status().message()), HasSubstr("empty"));
  EXPECT_THAT(std::string(Open("1234567").status().message()), HasSubstr("8 bytes"));
  EXPECT_THAT(std::string(Open(std::string(8, '\xff')).status().message()),
              HasSubstr("header length"));
  EXPECT_THAT(std::string(Open(File("{}", 0), {.header_bytes_max = 1}).status().message()),
              HasSubstr("header_bytes_max (1)"));
}

TEST_F(SafetensorsTest, RefusesBadHeaders) {
  EXPECT_THAT(Error("{", 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(Error("[]", 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(Error("\xff\xfe", 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(Error(std::string(100000, '['), 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(Error(R"({"a":1})", 0), HasSubstr("tensor a: the entry is not an object"));
  EXPECT_THAT(Error(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4), HasSubstr("dtype"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", 8),
              HasSubstr("dtype I64 is not supported"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), HasSubstr("shape"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
              HasSubstr("shape"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],)"
                    R"("data_offsets":[0,4]}})",
                    4),
              HasSubstr("too large"));
}

TEST_F(SafetensorsTest, RefusesBadRanges) {
  const auto with_offsets = [](const std::string& offsets) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + offsets + "}}";
  };
  EXPECT_THAT(Error(with_offsets("[0,8]"), 7), HasSubstr("within the 7 bytes"));
  EXPECT_THAT(Error(with_offsets("[8,0]"), 8), HasSubstr("not a range"));
  EXPECT_THAT(Error(with_offsets("[0,18446744073709551615]"), 8), HasSubstr("not a range"));
  EXPECT_THAT(Error(with_offsets("[0,8,9]"), 9), HasSubstr("not a range"));
  EXPECT_THAT(Error(with_offsets("\"x\""), 8), HasSubstr("not a range"));
  EXPECT_THAT(Error(with_offsets("[0,4]"), 8), HasSubstr("span 4 bytes, the shape needs 8"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                    R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                    12),
              HasSubstr("tensor b: overlaps tensor a"));
}

// Cuts and flips of a good file: any answer but a crash.
TEST_F(SafetensorsTest, SurvivesDamage) {
  const std::string good = File(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  const uint64_t seed = 5;
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    if (round % 2 == 0) {
      bytes.resize(random() % bytes.size());
    } else {
      for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const auto file = Open(bytes);
    if (!file.ok()) continue;
    for (const auto& [name, tensor] : (*file)->tensors()) {
      EXPECT_LE(tensor.data.size(), bytes.size()) << "seed " << seed << " round " << round;
    }
  }
}

}  // namespace
}  // namespace attic::worker
