#include "server/index/segment/kmeans_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/index/segment/kmeans_kernels.cc"
#include "hwy/foreach_target.h"
// Highway must come after foreach_target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

size_t ArgMaxSum(const float* a, const float* b, size_t count, float& best) {
  const hn::ScalableTag<float> df;
  const hn::RebindToSigned<decltype(df)> di;
  const size_t lanes = hn::Lanes(df);
  float best_value = a[0] + b[0];
  size_t best_index = 0;
  size_t i = 0;
  if (count >= lanes) {
    auto values = hn::Add(hn::LoadU(df, a), hn::LoadU(df, b));
    auto at = hn::Iota(di, 0);
    auto next = at;
    const auto step = hn::Set(di, static_cast<int32_t>(lanes));
    for (i = lanes; i + lanes <= count; i += lanes) {
      next = hn::Add(next, step);
      const auto sum = hn::Add(hn::LoadU(df, a + i), hn::LoadU(df, b + i));
      const auto better = hn::Gt(sum, values);
      values = hn::IfThenElse(better, sum, values);
      at = hn::IfThenElse(hn::RebindMask(di, better), next, at);
    }
    HWY_ALIGN float lane_values[HWY_MAX_BYTES / sizeof(float)];
    HWY_ALIGN int32_t lane_at[HWY_MAX_BYTES / sizeof(int32_t)];
    hn::Store(values, df, lane_values);
    hn::Store(at, di, lane_at);
    for (size_t lane = 0; lane < lanes; ++lane) {
      if (lane_values[lane] > best_value) {
        best_value = lane_values[lane];
        best_index = static_cast<size_t>(lane_at[lane]);
      }
    }
  }
  for (; i < count; ++i) {
    if (a[i] + b[i] > best_value) {
      best_value = a[i] + b[i];
      best_index = i;
    }
  }
  best = best_value;
  return best_index;
}

}  // namespace HWY_NAMESPACE
}  // namespace attic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(ArgMaxSum);

size_t ArgMaxSum(const float* a, const float* b, size_t count, float& best) {
  return HWY_DYNAMIC_DISPATCH(ArgMaxSum)(a, b, count, best);
}

}  // namespace attic
#endif  // HWY_ONCE
