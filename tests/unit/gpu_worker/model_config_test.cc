#include "gpu_worker/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nlohmann/json.hpp"
#include "tests/unit/gpu_worker/tiny_model.h"

namespace attic::worker {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

Json Llama() {
  return {{"hidden_size", 64},        {"intermediate_size", 128}, {"num_hidden_layers", 3},
          {"num_attention_heads", 8}, {"num_key_value_heads", 2}, {"vocab_size", 1000},
          {"rms_norm_eps", 1e-5},     {"rope_theta", 500000.0},   {"torch_dtype", "bfloat16"}};
}

absl::StatusOr<ModelConfig> Parse(const Json& config) {
  return ParseModelConfig(config.dump(), "models/llama/config.json");
}

// The message of the refusal of Llama() with one key replaced (or removed, by a discarded value).
std::string Error(const std::string& key, const Json& value) {
  Json config = Llama();
  config[key] = value;
  const auto parsed = Parse(config);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << key << " " << value;
  return std::string(parsed.status().message());
}

TEST(ModelConfigTest, ReadsLlama) {
  const auto config = Parse(Llama());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model_id, "llama");
  EXPECT_EQ(config->head_dim, 8u);
  EXPECT_EQ(config->kv_heads, 2u);
  EXPECT_EQ(config->rope_theta, 500000.0);
  EXPECT_EQ(config->layers.size(), 3u);
  EXPECT_EQ(config->full_attention_layers(), 3u);
  EXPECT_TRUE(config->layers[1].rotary && config->layers[1].dense);
  EXPECT_FLOAT_EQ(config->attention_shape().logit_scale, 1.0f / std::sqrt(8.0f));
  EXPECT_EQ(config->LengthScale(1'000'000), 1.0f);
}

TEST(ModelConfigTest, ReadsTheTinyModel) {
  const auto config = ReadModelConfig(std::string(kTinyFolder) + "/config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model_id, "tiny");
  EXPECT_EQ(config->full_attention_layers(), 1u);
  EXPECT_TRUE(config->layers[2].full_attention);
  EXPECT_FALSE(config->layers[2].rotary);
  EXPECT_FALSE(config->layers[2].dense);
  EXPECT_EQ(config->sliding_window, 12u);
  EXPECT_EQ(config->LengthScale(32), 1.0f);
  EXPECT_EQ(config->LengthScale(5), 1.0f);
  EXPECT_FLOAT_EQ(config->LengthScale(1024), 2.0f);
}

TEST(ModelConfigTest, ReadsRopeParameters) {
  Json config = Llama();
  config.erase("rope_theta");
  EXPECT_EQ(Parse(config)->rope_theta, 10000.0);
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1000.0}};
  EXPECT_EQ(Parse(config)->rope_theta, 1000.0);
  EXPECT_THAT(Error("rope_parameters", {{"rope_type", "yarn"}}),
              HasSubstr("rope_parameters.rope_type"));
  EXPECT_THAT(Error("rope_scaling", {{"type", "linear"}, {"factor", 2}}),
              HasSubstr("rope_scaling.type"));
  EXPECT_TRUE(Parse([] {
                auto c = Llama();
                c["rope_scaling"] = nullptr;
                return c;
              }())
                  .ok());
}

TEST(ModelConfigTest, RefusesWhatItDoesNotCompute) {
  for (const char* key : {"attention_bias", "mlp_bias", "attn_temperature_tuning"}) {
    EXPECT_THAT(Error(key, true), HasSubstr(key));
  }
  EXPECT_THAT(Error("quantization_config", {{"bits", 4}}), HasSubstr("quantization_config"));
  EXPECT_THAT(Error("final_logit_softcapping", 30.0), HasSubstr("final_logit_softcapping"));
  EXPECT_THAT(Error("hidden_act", "gelu"), HasSubstr("hidden_act"));
  EXPECT_THAT(Error("partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(Error("sliding_window", 4096), HasSubstr("layer_types"));
  EXPECT_THAT(Error("layer_types", {"full_attention", "chunked_attention", "full_attention"}),
              HasSubstr("layer_types[1]"));
}

TEST(ModelConfigTest, RefusesBadValues) {
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
                          "intermediate_size"}) {
    EXPECT_THAT(Error(key, nullptr), HasSubstr(std::string(key) + ": is missing"));
    for (const Json& value : {Json(0), Json(-1), Json(1.5), Json("8"), Json(uint64_t{1} << 40)}) {
      EXPECT_THAT(Error(key, value), HasSubstr(key));
    }
  }
  EXPECT_THAT(Error("num_key_value_heads", 3), HasSubstr("must divide"));
  EXPECT_THAT(Error("head_dim", 7), HasSubstr("must be even"));
  EXPECT_THAT(Error("head_dim", 4096), HasSubstr("head_dim"));
  EXPECT_THAT(Error("rms_norm_eps", -1e-5), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(Error("rope_theta", "big"), HasSubstr("rope_theta"));
  EXPECT_THAT(Error("tie_word_embeddings", 1), HasSubstr("tie_word_embeddings"));
  EXPECT_THAT(Error("no_rope_layers", {1, 1, 2}), HasSubstr("no_rope_layers[2]"));
  EXPECT_THAT(Error("no_rope_layers", {1}), HasSubstr("no_rope_layers"));
  EXPECT_THAT(Error("mlp_layer_types", {"dense", "sparse", "none"}),
              HasSubstr("mlp_layer_types[1]"));
  EXPECT_THAT(Error("log_length_scaling_training_context", 1),
              HasSubstr("log_length_scaling_training_context"));
  EXPECT_THAT(std::string(ParseModelConfig("{", "c.json").status().message()),
              HasSubstr("c.json: not a JSON object"));
  EXPECT_EQ(ReadModelConfig("/nowhere/config.json").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace attic::worker
