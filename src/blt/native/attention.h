// One query against keys and values in a ring or in a memory that grows.

#pragma once

#include "vectors.h"

namespace blt {

// y = weights times values, over slots that lie around the end of a ring
template <int VECTORS, typename C>
inline void weigh(const float* weights, const C* values, int64_t dim, int64_t capacity,
                  int64_t slot, int64_t count, float total, float* y) {
  v16 part[VECTORS] = {};
  for (int64_t j = 0; j < count; j++) {
    for (int v = 0; v < VECTORS; v++) part[v] += weights[j] * load(values + slot * dim + v * LANES);
    if (++slot == capacity) slot = 0;
  }
  for (int v = 0; v < VECTORS; v++) {
    part[v] /= total;
    std::memcpy(y + v * LANES, &part[v], sizeof(part[v]));
  }
}

template <typename C>
void attend(const float* q, const C* keys, const C* values, int64_t dim, int64_t capacity,
            int64_t oldest, int64_t at, float* scores, float* y) {
  const int64_t count = at - oldest + 1, first = oldest % capacity;
  int64_t slot = first;
  for (int64_t j = 0; j < count;) {
    if (dim % LANES == 0 && j + LANES <= count && slot + LANES <= capacity) {
      v16 parts[LANES];
      for (int k = 0; k < LANES; k++) {
        parts[k] = v16{};
        for (int64_t i = 0; i < dim; i += LANES)
          parts[k] += load(q + i) * load(keys + (slot + k) * dim + i);
      }
      const v16 all = sums(parts);
      std::memcpy(scores + j, &all, sizeof(all));
      j += LANES;
      slot += LANES;
    } else {
      scores[j++] = dot(q, keys + slot++ * dim, int(dim));
    }
    if (slot == capacity) slot = 0;
  }
  float peak = -INFINITY;
  for (int64_t j = 0; j < count; j++) peak = scores[j] > peak ? scores[j] : peak;
  for (int64_t j = count; j % LANES; j++) scores[j] = -INFINITY;  // there is room for whole vectors
  v16 totals = {};
  for (int64_t j = 0; j < count; j += LANES) {
    const v16 weights = exp(load(scores + j) - peak);
    std::memcpy(scores + j, &weights, sizeof(weights));
    totals += j + LANES <= count ? weights : v16{};
  }
  float total = sum(totals);
  for (int64_t j = count / LANES * LANES; j < count; j++) total += scores[j];
  int64_t d = 0;
  for (; d + 4 * LANES <= dim; d += 4 * LANES)
    weigh<4>(scores, values + d, dim, capacity, first, count, total, y + d);
  for (; d + LANES <= dim; d += LANES)
    weigh<1>(scores, values + d, dim, capacity, first, count, total, y + d);
  for (; d < dim; d++) {
    float part = 0;
    slot = first;
    for (int64_t j = 0; j < count; j++) {
      part += scores[j] * value(values[slot * dim + d]);
      if (++slot == capacity) slot = 0;
    }
    y[d] = part / total;
  }
}

// One head of few keys: rows of k and v lie ``stride`` apart; any number of them in one pass.
inline void mix(const float* q, const float* k, const float* v, int64_t dim, int64_t stride,
                int64_t count, float scale, float* y) {
  float peak = -INFINITY, total = 0;
  for (int64_t i = 0; i < dim; i++) y[i] = 0;
  for (int64_t s = 0; s < count; s++) {
    const float score = scale * dot(q, k + s * stride, int(dim));
    const float shrink = score > peak ? std::exp(peak - score) : 1.0f;
    if (score > peak) peak = score;
    const float weight = std::exp(score - peak);
    total = total * shrink + weight;
    for (int64_t i = 0; i < dim; i++) y[i] = y[i] * shrink + weight * v[s * stride + i];
  }
  for (int64_t i = 0; i < dim; i++) y[i] /= total;
}

// In nats, of the softmax of logits.
inline float entropy(const float* logits, int64_t count) {
  float peak = -INFINITY, total = 0, weighted = 0;
  for (int64_t i = 0; i < count; i++) peak = logits[i] > peak ? logits[i] : peak;
  for (int64_t i = 0; i < count; i++) {
    const float weight = std::exp(logits[i] - peak);
    total += weight;
    weighted += weight * (logits[i] - peak);
  }
  return std::log(total) - weighted / total;
}

}  // namespace blt
