#include "gpu_worker/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "api/limits.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace attic::worker {
namespace {

using Json = nlohmann::json;

constexpr uint32_t kHiddenSizeMax = 65536;
constexpr uint32_t kIntermediateSizeMax = 1 << 20;
constexpr uint32_t kVocabSizeMax = 1 << 24;
constexpr uint32_t kSlidingWindowMax = 1 << 20;
constexpr size_t kConfigBytesMax = 1 << 20;

// Null and absent mean the same.
const Json* Find(const Json& config, const char* key) {
  const auto found = config.find(key);
  return found == config.end() || found->is_null() ? nullptr : &*found;
}

absl::Status Bad(const std::string& key, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(key, ": ", problem));
}

absl::Status ReadCount(const Json& config, const char* key, uint64_t min, uint64_t max,
                       uint32_t& out) {
  const Json* value = Find(config, key);
  if (value == nullptr) return Bad(key, "is missing");
  if (!value->is_number_unsigned() || value->get<uint64_t>() < min ||
      value->get<uint64_t>() > max) {
    return Bad(key, absl::StrCat("must be an integer from ", min, " to ", max));
  }
  out = static_cast<uint32_t>(value->get<uint64_t>());
  return absl::OkStatus();
}

absl::Status ReadPositive(const Json& config, const char* key, double& out) {
  const Json* value = Find(config, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number() || !(value->get<double>() > 0) || !std::isfinite(value->get<double>())) {
    return Bad(key, "must be a positive number");
  }
  out = value->get<double>();
  return absl::OkStatus();
}

absl::Status ReadFlag(const Json& config, const char* key, bool& out) {
  const Json* value = Find(config, key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return Bad(key, "must be true or false");
  out = value->get<bool>();
  return absl::OkStatus();
}

// Keys that would change the result and are not computed here. Absent, null, false and neutral
// numbers are fine.
absl::Status RefuseUnsupported(const Json& config) {
  for (const char* key :
       {"attention_bias", "mlp_bias", "attn_temperature_tuning", "quantization_config",
        "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar",
        "attention_chunk_size", "num_local_experts", "num_experts", "n_routed_experts"}) {
    const Json* value = Find(config, key);
    if (value != nullptr && *value != Json(false)) {
      return Bad(key, "is not supported by this decoder");
    }
  }
  for (const char* key : {"partial_rotary_factor", "embedding_multiplier", "residual_multiplier",
                          "attention_multiplier", "logits_scaling"}) {
    const Json* value = Find(config, key);
    if (value != nullptr && !(value->is_number() && value->get<double>() == 1.0)) {
      return Bad(key, "only 1 is supported by this decoder");
    }
  }
  const Json* activation = Find(config, "hidden_act");
  if (activation != nullptr && *activation != Json("silu")) {
    return Bad("hidden_act", "only \"silu\" is supported by this decoder");
  }
  return absl::OkStatus();
}

// rope_theta at the top or under rope_parameters; any kind of scaling but "default" is refused.
absl::Status ReadRotary(const Json& config, double& theta) {
  ATTIC_RETURN_IF_ERROR(ReadPositive(config, "rope_theta", theta));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rotary = Find(config, key);
    if (rotary == nullptr) continue;
    if (!rotary->is_object()) return Bad(key, "must be an object");
    for (const char* type : {"type", "rope_type"}) {
      const Json* value = Find(*rotary, type);
      if (value != nullptr && *value != Json("default")) {
        return Bad(absl::StrCat(key, ".", type), "only \"default\" is supported by this decoder");
      }
    }
    const Json* factor = Find(*rotary, "partial_rotary_factor");
    if (factor != nullptr && *factor != Json(1) && *factor != Json(1.0)) {
      return Bad(absl::StrCat(key, ".partial_rotary_factor"), "only 1 is supported");
    }
    ATTIC_RETURN_IF_ERROR(ReadPositive(*rotary, "rope_theta", theta));
  }
  return absl::OkStatus();
}

// One of two words for each layer.
absl::Status ReadLayerWords(const Json& config, const char* key, const char* yes, const char* no,
                            std::vector<LayerConfig>& layers, bool LayerConfig::*field) {
  const Json* words = Find(config, key);
  if (words == nullptr) return absl::OkStatus();
  if (!words->is_array() || words->size() != layers.size()) {
    return Bad(key, absl::StrCat("must be an array of ", layers.size(), " strings"));
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const Json& word = (*words)[i];
    if (word != Json(yes) && word != Json(no)) {
      return Bad(absl::StrCat(key, "[", i, "]"),
                 absl::StrCat("must be \"", yes, "\" or \"", no, "\""));
    }
    layers[i].*field = word == Json(yes);
  }
  return absl::OkStatus();
}

absl::Status ReadRotaryLayers(const Json& config, std::vector<LayerConfig>& layers) {
  const char* key = "no_rope_layers";
  const Json* flags = Find(config, key);
  if (flags == nullptr) return absl::OkStatus();
  if (!flags->is_array() || flags->size() != layers.size()) {
    return Bad(key, absl::StrCat("must be an array of ", layers.size(), " zeros and ones"));
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const Json& flag = (*flags)[i];
    if (flag != Json(0) && flag != Json(1)) {
      return Bad(absl::StrCat(key, "[", i, "]"), "must be 0 or 1");
    }
    layers[i].rotary = flag == Json(1);
  }
  return absl::OkStatus();
}

absl::Status ReadLayers(const Json& config, ModelConfig& model) {
  uint32_t layers = 0;
  ATTIC_RETURN_IF_ERROR(ReadCount(config, "num_hidden_layers", 1, Limits().layers_max, layers));
  model.layers.resize(layers);
  ATTIC_RETURN_IF_ERROR(ReadLayerWords(config, "layer_types", "full_attention", "sliding_attention",
                                       model.layers, &LayerConfig::full_attention));
  ATTIC_RETURN_IF_ERROR(ReadLayerWords(config, "mlp_layer_types", "dense", "none", model.layers,
                                       &LayerConfig::dense));
  ATTIC_RETURN_IF_ERROR(ReadRotaryLayers(config, model.layers));
  if (Find(config, "layer_types") == nullptr) {
    bool uses_window = true;
    ATTIC_RETURN_IF_ERROR(ReadFlag(config, "use_sliding_window", uses_window));
    if (uses_window && Find(config, "sliding_window") != nullptr) {
      return Bad("sliding_window", "needs layer_types, which say where it applies");
    }
  }
  if (model.full_attention_layers() < layers) {
    ATTIC_RETURN_IF_ERROR(
        ReadCount(config, "sliding_window", 1, kSlidingWindowMax, model.sliding_window));
  }
  const bool any_dense = std::any_of(model.layers.begin(), model.layers.end(),
                                     [](const LayerConfig& layer) { return layer.dense; });
  if (!any_dense) return absl::OkStatus();
  return ReadCount(config, "intermediate_size", 1, kIntermediateSizeMax, model.intermediate_size);
}

absl::Status ReadHeads(const Json& config, ModelConfig& model) {
  const Limits limits;
  ATTIC_RETURN_IF_ERROR(ReadCount(config, "hidden_size", 1, kHiddenSizeMax, model.hidden_size));
  ATTIC_RETURN_IF_ERROR(
      ReadCount(config, "num_attention_heads", 1, limits.q_heads_max, model.q_heads));
  model.kv_heads = model.q_heads;
  if (Find(config, "num_key_value_heads") != nullptr) {
    ATTIC_RETURN_IF_ERROR(
        ReadCount(config, "num_key_value_heads", 1, limits.q_heads_max, model.kv_heads));
  }
  if (model.q_heads % model.kv_heads != 0) {
    return Bad("num_key_value_heads", "must divide num_attention_heads");
  }
  model.head_dim = model.hidden_size / model.q_heads;
  if (Find(config, "head_dim") != nullptr || model.head_dim == 0) {
    ATTIC_RETURN_IF_ERROR(ReadCount(config, "head_dim", 1, limits.head_dim_max, model.head_dim));
  }
  if (model.head_dim > limits.head_dim_max) {
    return Bad("head_dim", absl::StrCat("must be at most ", limits.head_dim_max));
  }
  const bool any_rotary = std::any_of(model.layers.begin(), model.layers.end(),
                                      [](const LayerConfig& layer) { return layer.rotary; });
  if (any_rotary && model.head_dim % 2 != 0) {
    return Bad("head_dim", "must be even for rotary position encoding");
  }
  return absl::OkStatus();
}

std::string ModelId(const Json& config, const std::string& path) {
  std::string id = std::filesystem::path(path).parent_path().filename().string();
  if (const Json* name = Find(config, "_name_or_path"); name != nullptr && name->is_string()) {
    if (!name->get<std::string>().empty()) id = name->get<std::string>();
  }
  if (id.empty()) id = "model";
  return id.substr(0, Limits().text_bytes_max);
}

absl::StatusOr<ModelConfig> Parse(const Json& config, const std::string& path) {
  if (!config.is_object()) return absl::InvalidArgumentError("not a JSON object");
  ModelConfig model;
  ATTIC_RETURN_IF_ERROR(RefuseUnsupported(config));
  ATTIC_RETURN_IF_ERROR(ReadLayers(config, model));
  ATTIC_RETURN_IF_ERROR(ReadHeads(config, model));
  ATTIC_RETURN_IF_ERROR(ReadCount(config, "vocab_size", 1, kVocabSizeMax, model.vocab_size));
  ATTIC_RETURN_IF_ERROR(ReadRotary(config, model.rope_theta));
  double eps = model.rms_norm_eps;
  ATTIC_RETURN_IF_ERROR(ReadPositive(config, "rms_norm_eps", eps));
  model.rms_norm_eps = static_cast<float>(eps);
  ATTIC_RETURN_IF_ERROR(ReadFlag(config, "tie_word_embeddings", model.tie_word_embeddings));
  if (const char* key = "log_length_scaling_training_context"; Find(config, key) != nullptr) {
    ATTIC_RETURN_IF_ERROR(ReadCount(config, key, 2, 1u << 31, model.length_scaling_context));
  }
  model.model_id = ModelId(config, path);
  return model;
}

}  // namespace

AttentionShape ModelConfig::attention_shape() const {
  return {.q_heads = q_heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .logit_scale = 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

float ModelConfig::LengthScale(int64_t tokens) const {
  if (length_scaling_context == 0) return 1.0f;
  const double ratio = std::log(static_cast<double>(tokens)) / std::log(length_scaling_context);
  return static_cast<float>(std::max(1.0, ratio));
}

size_t ModelConfig::full_attention_layers() const {
  return std::count_if(layers.begin(), layers.end(),
                       [](const LayerConfig& layer) { return layer.full_attention; });
}

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& text, const std::string& path) {
  absl::StatusOr<ModelConfig> model =
      Parse(Json::parse(text, nullptr, /*allow_exceptions=*/false), path);
  if (!model.ok()) {
    return absl::Status(model.status().code(), absl::StrCat(path, ": ", model.status().message()));
  }
  return model;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string text(kConfigBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kConfigBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": larger than ", kConfigBytesMax, " bytes"));
  }
  return ParseModelConfig(text, path);
}

}  // namespace attic::worker
