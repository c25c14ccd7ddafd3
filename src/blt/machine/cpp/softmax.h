// Softmax of one row of scores.

#pragma once

#include "vectors.h"

namespace blt {

// Without the division; returns the sum. What has no part in it has 0. There is room for whole
// vectors.
inline float soften(float* scores, int64_t count) {
  for (int64_t j = count; j % LANES; j++) scores[j] = -INFINITY;
  Floats most = load(scores), total = {};
  for (int64_t j = LANES; j < count; j += LANES) {
    const Floats some = load(scores + j);
    most = some > most ? some : most;
  }
  const float peak = greatest(most);
  for (int64_t j = 0; j < count; j += LANES) {
    const Floats x = load(scores + j) - peak;
    const Floats weights = x < -87.0f ? Floats{} : exp(x);
    std::memcpy(scores + j, &weights, sizeof(weights));
    total += weights;
  }
  return sum(total);
}

}  // namespace blt
