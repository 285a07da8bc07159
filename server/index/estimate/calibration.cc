#include "server/index/estimate/calibration.h"

#include <cmath>

namespace attic {
namespace {

constexpr uint64_t kTrialsMax = 64;
constexpr double kRounding = 1e-9;

bool IsShare(float x) { return x >= 0 && x <= 1; }

bool TrialsAscend(const std::vector<ErrorModel::Trial>& trials) {
  double expected = 0, bound = 0;
  for (const ErrorModel::Trial& trial : trials) {
    const double next = trial.expected * trial.factor;
    const bool ascends =
        trial.expected >= expected && next >= bound * (1 - kRounding) && std::isfinite(next);
    if (!ascends || !(trial.factor > 0)) return false;
    expected = trial.expected;
    bound = next;
  }
  return true;
}

}  // namespace

void EncodeCalibration(const Calibration& calibration, ByteWriter& writer) {
  const ErrorModel& errors = calibration.errors;
  for (const float weight : errors.weight) writer.Put(weight);
  writer.Put<uint64_t>(errors.trials.size());
  for (const ErrorModel::Trial& trial : errors.trials) {
    writer.Put(trial.expected);
    writer.Put(trial.factor);
  }
  writer.Put<uint64_t>(errors.samples);
  writer.Put(calibration.hidden_mass);
  writer.Put(calibration.wide_norm);
  writer.Put(calibration.rest_factor);
  writer.Put(calibration.scan_faster_below);
  writer.Put(calibration.least_error);
  writer.Put(calibration.coverage_max);
}

bool DecodeCalibration(ByteReader& reader, Calibration& calibration) {
  ErrorModel& errors = calibration.errors;
  bool sane = true;
  for (float& weight : errors.weight) {
    weight = reader.Get<float>();
    sane = sane && weight >= 0 && std::isfinite(weight);
  }
  const auto trials = reader.Get<uint64_t>();
  if (trials > kTrialsMax) return false;
  errors.trials.clear();
  for (uint64_t i = 0; i < trials; ++i) {
    ErrorModel::Trial trial;
    trial.expected = reader.Get<double>();
    trial.factor = reader.Get<double>();
    errors.trials.push_back(trial);
  }
  errors.samples = reader.Get<uint64_t>();
  calibration.hidden_mass = reader.Get<float>();
  calibration.wide_norm = reader.Get<float>();
  calibration.rest_factor = reader.Get<float>();
  calibration.scan_faster_below = reader.Get<float>();
  calibration.least_error = reader.Get<float>();
  calibration.coverage_max = reader.Get<float>();
  return reader.ok() && sane && TrialsAscend(errors.trials) && IsShare(calibration.hidden_mass) &&
         IsShare(calibration.wide_norm) && calibration.rest_factor >= 1 &&
         std::isfinite(calibration.rest_factor) && calibration.scan_faster_below >= 0 &&
         calibration.least_error >= 0 && IsShare(calibration.coverage_max);
}

}  // namespace attic
