#include "client/cpp/cluster/attend_parts.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "attention/partial_attention.h"

namespace attic {
namespace {

double Length(std::span<const float> vector) {
  double squares = 0;
  for (const float x : vector) squares += double{x} * x;
  return std::sqrt(squares);
}

// Merges one query head's answers of several blocks into the item's answer.
class HeadMerge {
 public:
  explicit HeadMerge(std::span<float> output) : output_(output) {}

  void Add(std::span<const float> output, float log_sum_exp, float coverage, float error) {
    blocks_.push_back({log_sum_exp, coverage, error, Length(output)});
    MergePartialAttention(output, log_sum_exp, output_, log_sum_exp_);
  }
  float log_sum_exp() const { return log_sum_exp_; }
  float coverage() const {
    if (blocks_.size() == 1 || log_sum_exp_ == kEmptyLogSumExp) return blocks_.front().coverage;
    double sum = 0, mass = 0;
    for (const Block& block : blocks_) {
      sum += Mass(block) * block.coverage;
      mass += Mass(block);
    }
    return static_cast<float>(sum / mass);
  }
  float error() const {
    if (blocks_.size() == 1) return blocks_.front().error;
    double sum = 0, mass = 0;
    for (const Block& block : blocks_) {
      sum += Mass(block) * block.error * block.length;
      mass += Mass(block);
    }
    return sum == 0 ? 0.0f : static_cast<float>(sum / mass / Length(output_));
  }

 private:
  struct Block {
    float log_sum_exp;
    float coverage;
    float error;
    double length;
  };
  // Relative to that of all blocks, but for rounding.
  double Mass(const Block& block) const {
    if (block.log_sum_exp == kEmptyLogSumExp) return 0;
    return std::exp(double{block.log_sum_exp} - double{log_sum_exp_});
  }

  const std::span<float> output_;
  float log_sum_exp_ = kEmptyLogSumExp;
  std::vector<Block> blocks_;
};

}  // namespace

absl::Status CheckAttend(const SessionInfo& info, const AttendItem& item) {
  if (!info.Stores(item.layer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer: ", item.layer, " is not among the session's stored layers"));
  }
  if (item.range.begin < 0 || item.range.begin > item.range.end) {
    return absl::InvalidArgumentError("range: must have 0 <= begin <= end");
  }
  const size_t expected = size_t{info.fingerprint.q_heads} * info.fingerprint.head_dim;
  if (item.queries.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("queries: ", item.queries.size(), " numbers, the session needs ", expected));
  }
  return absl::OkStatus();
}

PositionRange ClampRange(const PositionRange& range, int64_t watermark) {
  const int64_t end = std::min(range.end, watermark);
  return {.begin = std::min(range.begin, end), .end = end};
}

std::vector<AttendPart> SplitItem(const SessionInfo& info, const AttendItem& item,
                                  const PositionRange& range) {
  const Fingerprint& f = info.fingerprint;
  const size_t group_floats = size_t{f.group()} * f.head_dim;
  const std::vector<BlockStretch> blocks = BlocksOf(info.replication.shard_tokens, range);
  std::vector<AttendPart> parts;
  for (uint32_t head = 0; head < f.kv_heads; ++head) {
    for (const BlockStretch& block : blocks) {
      AttendPart part{.shard = {.layer = item.layer, .kv_head = head, .block = block.block},
                      .block_begin = block.block_begin,
                      .item = item};
      part.item.session_id = ShardSessionId(info.session_id, part.shard);
      part.item.range = block.local();
      // Nothing is read of an empty stretch, which may begin where no shard is yet.
      if (range.begin == range.end) {
        part.shard.block = 0;
        part.block_begin = 0;
        part.item.session_id = ShardSessionId(info.session_id, part.shard);
        part.item.range = {.begin = 0, .end = 0};
      }
      int64_t needed = std::max(range.end, item.min_watermark) - part.block_begin;
      if (info.replication.shard_tokens > 0) {
        needed = std::min(needed, info.replication.shard_tokens);
      }
      part.item.min_watermark = std::max(needed, part.item.range.end);
      part.item.queries = item.queries.subspan(head * group_floats, group_floats);
      parts.push_back(std::move(part));
    }
  }
  return parts;
}

absl::Status CheckPartAnswer(const SessionInfo& info, const AttendPart& part,
                             const AttendAnswer& answer) {
  const Fingerprint& f = info.fingerprint;
  const size_t heads = f.group();
  if (answer.output.size() != heads * f.value_dim || answer.log_sum_exp.size() != heads ||
      answer.coverage.size() != heads || answer.estimated_error.size() != heads) {
    return absl::InternalError("a shard's answer has the wrong shape");
  }
  const int64_t tokens = part.item.range.end - part.item.range.begin;
  const bool same =
      tokens == 0 ? answer.range.begin == answer.range.end : answer.range == part.item.range;
  if (same) return absl::OkStatus();
  return absl::InternalError("a shard's answer is over other positions than were asked for");
}

AttendAnswer MergeAnswers(const SessionInfo& info, std::span<const AttendPart> parts,
                          std::span<const AttendAnswer> answers, const PositionRange& range) {
  const Fingerprint& f = info.fingerprint;
  AttendAnswer merged;
  merged.output.assign(size_t{f.q_heads} * f.value_dim, 0.0f);
  merged.log_sum_exp.resize(f.q_heads);
  merged.coverage.resize(f.q_heads);
  merged.estimated_error.resize(f.q_heads);
  merged.range = range;
  merged.epoch = answers.front().epoch;
  merged.boot_id = answers.front().boot_id;
  for (const AttendAnswer& answer : answers) {
    merged.degraded |= answer.degraded;
    merged.read += answer.read;
    merged.epoch = std::min(merged.epoch, answer.epoch);
  }
  for (uint32_t q = 0; q < f.q_heads; ++q) {
    HeadMerge head(std::span(merged.output).subspan(size_t{q} * f.value_dim, f.value_dim));
    const size_t in_group = q % f.group();
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].shard.kv_head != q / f.group()) continue;
      const AttendAnswer& answer = answers[i];
      head.Add(std::span(answer.output).subspan(in_group * f.value_dim, f.value_dim),
               answer.log_sum_exp[in_group], answer.coverage[in_group],
               answer.estimated_error[in_group]);
    }
    merged.log_sum_exp[q] = head.log_sum_exp();
    merged.coverage[q] = head.coverage();
    merged.estimated_error[q] = head.error();
  }
  return merged;
}

}  // namespace attic
