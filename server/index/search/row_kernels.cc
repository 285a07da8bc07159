#include "server/index/search/row_kernels.h"

#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/index/search/row_kernels.cc"
#include "hwy/foreach_target.h"
// Highway must come after foreach_target.
#include "attention/exp-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The last count < Lanes(d) elements of an array, the other lanes `filler`.
template <class D, typename T>
HWY_INLINE hn::Vec<D> LoadLast(D d, const T* p, size_t count, T filler) {
  HWY_ALIGN T buffer[HWY_MAX_BYTES / sizeof(float)];
  for (T& element : buffer) element = filler;
  std::memcpy(buffer, p, count * sizeof(T));
  return hn::LoadU(d, buffer);
}

// Adds up rows, a vector of them at a time.
class RowAdder {
 public:
  using D = hn::ScalableTag<float>;
  using D8 = hn::Rebind<uint8_t, D>;
  using V = hn::Vec<D>;

  // What a compiler writes by itself would be for the least instruction set.
  HWY_INLINE RowAdder()
      : all_(hn::Zero(D())),
        squares_(hn::Zero(D())),
        rest_(hn::Zero(D())),
        rest_squares_(hn::Zero(D())),
        best_mass_(hn::Zero(D())),
        best_(lowest()) {}

  HWY_INLINE void Add(V logit, V mass, hn::Vec<D8> flags) {
    const D d;
    const hn::RebindToSigned<D> di;
    const auto is_rest = hn::RebindMask(d, hn::Eq(hn::PromoteTo(di, flags), hn::Zero(di)));
    const auto left = hn::IfThenElseZero(is_rest, mass);
    all_ = hn::Add(all_, mass);
    squares_ = hn::MulAdd(mass, mass, squares_);
    rest_ = hn::Add(rest_, left);
    rest_squares_ = hn::MulAdd(left, left, rest_squares_);
    best_mass_ = hn::Max(best_mass_, left);
    best_ = hn::Max(best_, hn::IfThenElse(is_rest, logit, lowest()));
  }

  RowSums Finish() const {
    const D d;
    RowSums sums;
    sums.rest = hn::GetLane(hn::SumOfLanes(d, rest_));
    sums.rest_squares = hn::GetLane(hn::SumOfLanes(d, rest_squares_));
    sums.exact = hn::GetLane(hn::SumOfLanes(d, all_)) - sums.rest;
    sums.exact_squares = hn::GetLane(hn::SumOfLanes(d, squares_)) - sums.rest_squares;
    sums.best_rest = hn::GetLane(hn::MaxOfLanes(d, best_));
    sums.best_mass = hn::GetLane(hn::MaxOfLanes(d, best_mass_));
    return sums;
  }

 private:
  static HWY_INLINE V lowest() { return hn::Set(D(), -std::numeric_limits<float>::infinity()); }

  V all_, squares_, rest_, rest_squares_, best_mass_, best_;
};

constexpr uint8_t kFlagged = 1;

RowSums SumRows(const float* logits, const float* masses, const uint8_t* exact, size_t count) {
  const RowAdder::D d;
  const RowAdder::D8 d8;
  const size_t lanes = hn::Lanes(d);
  RowAdder adder;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    adder.Add(hn::LoadU(d, logits + i), hn::LoadU(d, masses + i), hn::LoadU(d8, exact + i));
  }
  if (i < count) {
    adder.Add(LoadLast(d, logits + i, count - i, 0.0f), LoadLast(d, masses + i, count - i, 0.0f),
              LoadLast(d8, exact + i, count - i, kFlagged));
  }
  return adder.Finish();
}

RowSums WeighRows(float reference, const float* HWY_RESTRICT logits,
                  const uint8_t* HWY_RESTRICT exact, size_t count, float* HWY_RESTRICT masses) {
  const RowAdder::D d;
  const RowAdder::D8 d8;
  const size_t lanes = hn::Lanes(d);
  const auto shift = hn::Set(d, reference);
  RowAdder adder;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto logit = hn::LoadU(d, logits + i);
    const auto mass = ShiftedExp(d, logit, shift);
    hn::StoreU(mass, d, masses + i);
    adder.Add(logit, mass, hn::LoadU(d8, exact + i));
  }
  if (i < count) {
    const float nothing = -std::numeric_limits<float>::infinity();
    const auto logit = LoadLast(d, logits + i, count - i, nothing);
    const auto mass = ShiftedExp(d, logit, shift);
    HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(mass, d, buffer);
    std::memcpy(masses + i, buffer, (count - i) * sizeof(float));
    adder.Add(logit, mass, LoadLast(d8, exact + i, count - i, kFlagged));
  }
  return adder.Finish();
}

size_t FindRows(const float* HWY_RESTRICT values, const uint8_t* HWY_RESTRICT exact, size_t count,
                float floor, uint32_t* HWY_RESTRICT found) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto floors = hn::Set(d, floor);
  size_t n = 0, i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto reach = hn::Ge(hn::LoadU(d, values + i), floors);
    if (hn::AllFalse(d, reach)) continue;
    for (size_t j = i; j < i + lanes; ++j) {
      found[n] = static_cast<uint32_t>(j);
      n += (values[j] >= floor) & (exact[j] == 0);
    }
  }
  for (; i < count; ++i) {
    found[n] = static_cast<uint32_t>(i);
    n += (values[i] >= floor) & (exact[i] == 0);
  }
  return n;
}

}  // namespace HWY_NAMESPACE
}  // namespace attic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {
namespace {

HWY_EXPORT(SumRows);
HWY_EXPORT(WeighRows);
HWY_EXPORT(FindRows);

}  // namespace

RowSums SumRows(const float* logits, const float* masses, const uint8_t* exact, size_t count) {
  return HWY_DYNAMIC_DISPATCH(SumRows)(logits, masses, exact, count);
}

RowSums WeighRows(float reference, const float* logits, const uint8_t* exact, size_t count,
                  float* masses) {
  return HWY_DYNAMIC_DISPATCH(WeighRows)(reference, logits, exact, count, masses);
}

size_t FindRows(const float* values, const uint8_t* exact, size_t count, float floor,
                uint32_t* found) {
  return HWY_DYNAMIC_DISPATCH(FindRows)(values, exact, count, floor, found);
}

}  // namespace attic
#endif  // HWY_ONCE
