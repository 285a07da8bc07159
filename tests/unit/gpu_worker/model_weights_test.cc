#include "gpu_worker/model/model_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "nlohmann/json.hpp"
#include "tests/support/temporary_folder.h"
#include "tests/unit/gpu_worker/tiny_model.h"

namespace attic::worker {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

// A copy of the tiny model whose header can be edited.
class ModelWeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::copy_file(std::string(kTinyFolder) + "/config.json",
                               folder_.file("config.json"));
    std::ifstream in(std::string(kTinyFolder) + "/model.safetensors", std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    std::memcpy(&header_bytes_, bytes_.data(), 8);
    header_ = Json::parse(bytes_.substr(8, header_bytes_));
  }

  // Loads the model with its header as it is now.
  absl::StatusOr<std::unique_ptr<Model>> Load() {
    const std::string header = header_.dump();
    const uint64_t length = header.size();
    std::ofstream out(folder_.file("model.safetensors"), std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << header << bytes_.substr(8 + header_bytes_);
    out.close();
    return LoadModel(folder_.path(), *backend_);
  }
  std::string Error() {
    const auto model = Load();
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(model.status().message()), HasSubstr("model.safetensors"));
    return std::string(model.status().message());
  }

  ThreadPool pool_{1};
  std::unique_ptr<Backend> backend_ = MakeCpuBackend(pool_);
  const TemporaryFolder folder_;
  std::string bytes_;
  uint64_t header_bytes_ = 0;
  Json header_;
};

constexpr char kQuery[] = "model.layers.0.self_attn.q_proj.weight";

TEST_F(ModelWeightsTest, LoadsTheTinyModel) {
  const auto model = Load();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->layers.size(), 3u);
  EXPECT_EQ((*model)->layers[0].q->outputs(), 32u);
  EXPECT_FALSE((*model)->layers[0].q_norm.empty());
  EXPECT_TRUE((*model)->layers[1].q_norm.empty());
  EXPECT_EQ((*model)->layers[2].gate, nullptr);
  EXPECT_EQ((*model)->revision.size(), 16u);
  uint64_t elements = 0;
  for (const auto& [name, entry] : header_.items()) {
    if (name == "__metadata__") continue;
    uint64_t product = 1;
    for (const Json& size : entry["shape"]) product *= size.get<uint64_t>();
    elements += product;
  }
  EXPECT_EQ((*model)->parameters, elements);
}

TEST_F(ModelWeightsTest, NamesWhatIsWrong) {
  const Json good = header_;
  header_.erase(kQuery);
  EXPECT_THAT(Error(), HasSubstr(std::string(kQuery) + ": is missing"));

  header_ = good;
  std::swap(header_[kQuery]["shape"], header_["model.layers.0.mlp.gate_proj.weight"]["shape"]);
  std::swap(header_[kQuery]["data_offsets"],
            header_["model.layers.0.mlp.gate_proj.weight"]["data_offsets"]);
  EXPECT_THAT(Error(), HasSubstr(std::string(kQuery) + ": has shape (48, 32), expected (32, 32)"));

  header_ = good;
  header_["model.layers.0.self_attn.q_proj.bias"] = {
      {"dtype", "F32"}, {"shape", {0}}, {"data_offsets", {0, 0}}};
  EXPECT_THAT(Error(), HasSubstr("q_proj.bias: is not used"));
}

TEST_F(ModelWeightsTest, RefusesWeightsThatAreNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const size_t offset = header_[kQuery]["data_offsets"][0].get<size_t>();
  std::memcpy(bytes_.data() + 8 + header_bytes_ + offset, &infinity, 4);
  EXPECT_THAT(Error(), HasSubstr(std::string(kQuery) + ": holds a value that is not finite"));
}

TEST_F(ModelWeightsTest, RefusesTruncatedFiles) {
  bytes_.resize(bytes_.size() - 1);
  EXPECT_THAT(Error(), HasSubstr("data_offsets"));
}

TEST_F(ModelWeightsTest, RevisionTellsWeightsApart) {
  const std::string before = (*Load())->revision;
  EXPECT_EQ((*Load())->revision, before);
  bytes_.back() = static_cast<char>(bytes_.back() ^ 1);
  EXPECT_NE((*Load())->revision, before);
}

}  // namespace
}  // namespace attic::worker
