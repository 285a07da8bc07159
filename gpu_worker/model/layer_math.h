// The element-wise parts of a decoder layer. All are thread-safe and allocate nothing.
#ifndef ATTIC_GPU_WORKER_MODEL_LAYER_MATH_H_
#define ATTIC_GPU_WORKER_MODEL_LAYER_MATH_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace attic::worker {

// out[r] = in[r] / sqrt(mean(in[r]^2) + eps) * weight, for `rows` rows of weight.size() elements
// (RMSNorm, Zhang and Sennrich, arXiv 1910.07467). in == out is allowed.
void RmsNormRows(const float* in, size_t rows, std::span<const float> weight, float eps,
                 float* out);

// Cosines and sines of the rotary position encoding of `count` positions from `first`:
// cos(position * theta^(-i / half)), i in [0, half); each array is (count, half). Angles are
// computed in double: at position 10^6 a float angle is off by up to 0.03 radian.
void FillRotaryTable(int64_t first, size_t count, size_t half, double theta, float* cosines,
                     float* sines);

// Rotates pairs (x_i, x_{i + half}) of every head of `count` tokens in place (RoFormer,
// arXiv 2104.09864, in the halves convention of Llama). x: (count, heads, 2 * half).
void RotateHeads(const float* cosines, const float* sines, size_t count, size_t heads, size_t half,
                 float* x);

// gate_i = gate_i * sigmoid(gate_i) * up_i (SwiGLU, Shazeer, arXiv 2002.05202). `scratch` has
// gate.size() elements.
void SwiGlu(std::span<float> gate, std::span<const float> up, float* scratch);

// x *= factor.
void Scale(float factor, std::span<float> x);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_LAYER_MATH_H_
