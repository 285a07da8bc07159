// Exponentials of differences, for each Highway target. Include from a file that uses
// foreach_target.h; Highway repeats it per target.
#if defined(ATTIC_ATTENTION_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTIC_ATTENTION_EXP_INL_H_
#undef ATTIC_ATTENTION_EXP_INL_H_
#else
#define ATTIC_ATTENTION_EXP_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// exp(x - shift); 0 where it would be below the smallest normal float, and for NaN.
template <class D, class V>
HWY_INLINE V ShiftedExp(D d, V x, V shift) {
  const V difference = hn::Sub(x, shift);
  const auto normal = hn::Ge(difference, hn::Set(d, -87.33654f));
  const V safe = hn::IfThenElse(normal, difference, hn::Zero(d));
  return hn::IfThenElseZero(normal, hn::Exp(d, safe));
}

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // ATTIC_ATTENTION_EXP_INL_H_
