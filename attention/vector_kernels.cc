#include "attention/vector_kernels.h"

#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/vector_kernels.cc"
#include "hwy/foreach_target.h"
// foreach_target.h must come first.
#include "attention/exp-inl.h"
#include "attention/widen-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLanesMax = HWY_MAX_BYTES / sizeof(float);

// The last count < Lanes(d) elements of an array, the other lanes `filler`.
template <class D>
HWY_INLINE hn::Vec<D> LoadLast(D d, const float* p, size_t count, float filler) {
  float buffer[kLanesMax];
  hn::StoreU(hn::Set(d, filler), d, buffer);
  std::memcpy(buffer, p, count * sizeof(float));
  return hn::LoadU(d, buffer);
}

template <class D, class V>
HWY_INLINE void StoreLast(D d, V v, size_t count, float* p) {
  float buffer[kLanesMax];
  hn::StoreU(v, d, buffer);
  std::memcpy(p, buffer, count * sizeof(float));
}

struct Product {
  template <class V>
  static HWY_INLINE V Add(V a, V b, V sum) {
    return hn::MulAdd(a, b, sum);
  }
};

struct SquaredDifference {
  template <class V>
  static HWY_INLINE V Add(V a, V b, V sum) {
    const V difference = hn::Sub(a, b);
    return hn::MulAdd(difference, difference, sum);
  }
};

// sum_i Term(a_i, b_i); four sums, because one would wait for the latency of every addition.
template <class Term>
HWY_INLINE float SumTerms(const float* a, const float* b, size_t dim) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d), sum2 = hn::Zero(d), sum3 = hn::Zero(d);
  size_t i = 0;
  for (; i + 4 * lanes <= dim; i += 4 * lanes) {
    sum0 = Term::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum0);
    sum1 = Term::Add(hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), sum1);
    sum2 = Term::Add(hn::LoadU(d, a + i + 2 * lanes), hn::LoadU(d, b + i + 2 * lanes), sum2);
    sum3 = Term::Add(hn::LoadU(d, a + i + 3 * lanes), hn::LoadU(d, b + i + 3 * lanes), sum3);
  }
  for (; i + lanes <= dim; i += lanes) {
    sum0 = Term::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum0);
  }
  if (i < dim) {
    sum1 = Term::Add(LoadLast(d, a + i, dim - i, 0.0f), LoadLast(d, b + i, dim - i, 0.0f), sum1);
  }
  const auto sum = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

float DotKernel(const float* a, const float* b, size_t dim) { return SumTerms<Product>(a, b, dim); }

float SquaredDistanceKernel(const float* a, const float* b, size_t dim) {
  return SumTerms<SquaredDifference>(a, b, dim);
}

template <class Rows>
float RowDistance(const std::byte* a_bytes, const std::byte* b_bytes, size_t dim) {
  using Element = typename Rows::Element;
  const hn::ScalableTag<float> d;
  const size_t step = 2 * hn::Lanes(d);
  const auto* a = reinterpret_cast<const Element*>(a_bytes);
  const auto* b = reinterpret_cast<const Element*>(b_bytes);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  const auto add = [&](const Element* pa, const Element* pb) HWY_ATTR {
    auto a0 = sum0, a1 = sum0, b0 = sum0, b1 = sum0;
    Rows::Load(d, pa, a0, a1);
    Rows::Load(d, pb, b0, b1);
    const auto difference0 = hn::Sub(a0, b0), difference1 = hn::Sub(a1, b1);
    sum0 = hn::MulAdd(difference0, difference0, sum0);
    sum1 = hn::MulAdd(difference1, difference1, sum1);
  };
  size_t i = 0;
  for (; i + step <= dim; i += step) add(a + i, b + i);
  if (i < dim) {
    Element last_a[2 * HWY_MAX_BYTES / sizeof(float)] = {};
    Element last_b[2 * HWY_MAX_BYTES / sizeof(float)] = {};
    std::memcpy(last_a, a + i, (dim - i) * sizeof(Element));
    std::memcpy(last_b, b + i, (dim - i) * sizeof(Element));
    add(last_a, last_b);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
}

float RowDistanceKernel(ElementType type, const std::byte* a, const std::byte* b, size_t dim) {
  switch (type) {
    case ElementType::kBFloat16:
      return RowDistance<BFloat16Rows>(a, b, dim);
    case ElementType::kFloat16:
      return RowDistance<Float16Rows>(a, b, dim);
    default:
      return RowDistance<Float32Rows>(a, b, dim);
  }
}

void AddScaledKernel(float a, const float* x, size_t dim, float* y) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto factor = hn::Set(d, a);
  size_t i = 0;
  for (; i + lanes <= dim; i += lanes) {
    hn::StoreU(hn::MulAdd(factor, hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  }
  if (i == dim) return;
  const size_t rest = dim - i;
  const auto sum =
      hn::MulAdd(factor, LoadLast(d, x + i, rest, 0.0f), LoadLast(d, y + i, rest, 0.0f));
  StoreLast(d, sum, rest, y + i);
}

float ExpKernel(float shift, float* x, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto shifts = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto e = ShiftedExp(d, hn::LoadU(d, x + i), shifts);
    hn::StoreU(e, d, x + i);
    sum = hn::Add(sum, e);
  }
  if (i < count) {
    const float nothing = -std::numeric_limits<float>::infinity();
    const auto e = ShiftedExp(d, LoadLast(d, x + i, count - i, nothing), shifts);
    StoreLast(d, e, count - i, x + i);
    sum = hn::Add(sum, e);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

float MaxKernel(const float* x, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const float nothing = -std::numeric_limits<float>::infinity();
  auto max = hn::Set(d, nothing);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) max = hn::Max(max, hn::LoadU(d, x + i));
  if (i < count) max = hn::Max(max, LoadLast(d, x + i, count - i, nothing));
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

// scale * score with infinities and NaN replaced by the nearest (lowest for NaN) finite number.
template <class D, class V>
HWY_INLINE V Logit(D d, V score, V scale) {
  const V lowest = hn::Set(d, std::numeric_limits<float>::lowest());
  const V largest = hn::Set(d, std::numeric_limits<float>::max());
  const V logit = hn::Mul(score, scale);
  const V number = hn::IfThenElse(hn::Eq(logit, logit), logit, lowest);
  return hn::Min(hn::Max(number, lowest), largest);
}

float ScaleKernel(float scale, float* x, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto factor = hn::Set(d, scale);
  auto max = hn::Set(d, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto logit = Logit(d, hn::LoadU(d, x + i), factor);
    hn::StoreU(logit, d, x + i);
    max = hn::Max(max, logit);
  }
  if (i < count) {
    // Repeats the last score, so that filler lanes never win the maximum.
    const auto logit = Logit(d, LoadLast(d, x + i, count - i, x[count - 1]), factor);
    StoreLast(d, logit, count - i, x + i);
    max = hn::Max(max, logit);
  }
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

const char* TargetKernel() { return hwy::TargetName(HWY_TARGET); }

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(DotKernel);
HWY_EXPORT(SquaredDistanceKernel);
HWY_EXPORT(RowDistanceKernel);
HWY_EXPORT(AddScaledKernel);
HWY_EXPORT(ExpKernel);
HWY_EXPORT(MaxKernel);
HWY_EXPORT(ScaleKernel);
HWY_EXPORT(TargetKernel);

float Dot(const float* a, const float* b, size_t dim) {
  return HWY_DYNAMIC_DISPATCH(DotKernel)(a, b, dim);
}

float SquaredDistance(const float* a, const float* b, size_t dim) {
  return HWY_DYNAMIC_DISPATCH(SquaredDistanceKernel)(a, b, dim);
}

float SquaredDistance(ElementType type, const std::byte* a, const std::byte* b, size_t dim) {
  return HWY_DYNAMIC_DISPATCH(RowDistanceKernel)(type, a, b, dim);
}

void AddScaled(float a, const float* x, size_t dim, float* y) {
  HWY_DYNAMIC_DISPATCH(AddScaledKernel)(a, x, dim, y);
}

float ExpInPlace(float shift, std::span<float> x) {
  return HWY_DYNAMIC_DISPATCH(ExpKernel)(shift, x.data(), x.size());
}

float MaxElement(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(MaxKernel)(x.data(), x.size());
}

float ScaleLogits(float scale, std::span<float> x) {
  return HWY_DYNAMIC_DISPATCH(ScaleKernel)(scale, x.data(), x.size());
}

const char* VectorTargetName() { return HWY_DYNAMIC_DISPATCH(TargetKernel)(); }

}  // namespace attic
#endif  // HWY_ONCE
