#include "gpu_worker/model/layer_math.h"

#include <algorithm>
#include <cmath>

#include "attention/vector_kernels.h"

namespace attic::worker {

void RmsNormRows(const float* in, size_t rows, std::span<const float> weight, float eps,
                 float* out) {
  const size_t size = weight.size();
  for (size_t r = 0; r < rows; ++r) {
    const float* x = in + r * size;
    float* y = out + r * size;
    const float mean = Dot(x, x, size) / static_cast<float>(size);
    const float factor = 1.0f / std::sqrt(mean + eps);
    for (size_t i = 0; i < size; ++i) y[i] = x[i] * factor * weight[i];
  }
}

void FillRotaryTable(int64_t first, size_t count, size_t half, double theta, float* cosines,
                     float* sines) {
  for (size_t i = 0; i < half; ++i) {
    const double frequency = std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
    for (size_t t = 0; t < count; ++t) {
      const double angle = static_cast<double>(first + static_cast<int64_t>(t)) * frequency;
      cosines[t * half + i] = static_cast<float>(std::cos(angle));
      sines[t * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void RotateHeads(const float* cosines, const float* sines, size_t count, size_t heads, size_t half,
                 float* x) {
  for (size_t t = 0; t < count; ++t) {
    const float* cosine = cosines + t * half;
    const float* sine = sines + t * half;
    for (size_t h = 0; h < heads; ++h, x += 2 * half) {
      for (size_t i = 0; i < half; ++i) {
        const float first = x[i];
        const float second = x[i + half];
        x[i] = first * cosine[i] - second * sine[i];
        x[i + half] = second * cosine[i] + first * sine[i];
      }
    }
  }
}

void SwiGlu(std::span<float> gate, std::span<const float> up, float* scratch) {
  constexpr float kExponentMax = 80.0f;  // exp stays finite; beyond it the sigmoid is 0 anyway
  for (size_t i = 0; i < gate.size(); ++i) scratch[i] = std::min(-gate[i], kExponentMax);
  ExpInPlace(0.0f, {scratch, gate.size()});
  for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1.0f + scratch[i]) * up[i];
}

void Scale(float factor, std::span<float> x) {
  for (float& value : x) value *= factor;
}

}  // namespace attic::worker
