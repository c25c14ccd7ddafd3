// One query against keys and values in a ring or in a memory that grows.

#pragma once

#include "softmax.h"

namespace blt {

// Heads are read two vectors of features at a time. Of bfloat16 these are taken apart into those at
// even and at odd places, which costs two operations; so a query is put in that order, and a result
// back.
constexpr int PART = 2 * LANES;

constexpr int64_t AHEAD = 2048;  // numbers in memory that are asked for before their turn

template <typename C>
inline int64_t place(int64_t i) {  // where feature i lies in that order
  if (sizeof(C) == 4) return i;
  return i / PART * PART + i % 2 * LANES + i % PART / 2;
}

// Scores of LANES keys
template <typename C>
inline Floats score(const float* q, const C* keys, int64_t dim) {
  Floats totals[LANES], even, odd;
  for (int k = 0; k < LANES; k++) {
    totals[k] = Floats{};
    for (int64_t i = 0; i < dim; i += PART) {
      __builtin_prefetch(keys + k * dim + i + AHEAD);
      load_two(keys + k * dim + i, even, odd);
      totals[k] += load(q + i) * even + load(q + i + LANES) * odd;
    }
  }
  return sums(totals);
}

// y += weights times values of slots that lie in a row
template <int PARTS, typename C>
inline void weigh(const float* weights, const C* values, int64_t dim, int64_t count, float* y) {
  Floats total[2 * PARTS], even, odd;
  for (int v = 0; v < 2 * PARTS; v++) total[v] = load(y + v * LANES);
  for (int64_t j = 0; j < count; j++)
    for (int v = 0; v < PARTS; v++) {
      __builtin_prefetch(values + j * dim + v * PART + AHEAD);
      load_two(values + j * dim + v * PART, even, odd);
      total[2 * v] += weights[j] * even;
      total[2 * v + 1] += weights[j] * odd;
    }
  std::memcpy(y, total, sizeof(total));
}

// Scores of slots that lie in a row
template <typename C>
inline void score_all(const float* q, const C* keys, int64_t dim, int64_t count, float* scores) {
  int64_t j = 0;
  for (; dim % PART == 0 && j + LANES <= count; j += LANES) {
    const Floats some = score(q, keys + j * dim, dim);
    std::memcpy(scores + j, &some, sizeof(some));
  }
  for (; j < count; j++) {
    scores[j] = 0;
    for (int64_t i = 0; i < dim; i++) scores[j] += q[place<C>(i)] * value(keys[j * dim + i]);
  }
}

template <typename C>
inline void weigh_all(const float* weights, const C* values, int64_t dim, int64_t count, float* y) {
  int64_t d = 0;
  for (; d + 2 * PART <= dim; d += 2 * PART) weigh<2>(weights, values + d, dim, count, y + d);
  for (; d + PART <= dim; d += PART) weigh<1>(weights, values + d, dim, count, y + d);
  for (; d < dim; d++)
    for (int64_t j = 0; j < count; j++) y[place<C>(d)] += weights[j] * value(values[j * dim + d]);
}

// One head: y from slots oldest..at, which may lie around the end of a ring. q is left in disorder.
template <typename C>
void attend(float* q, const C* keys, const C* values, int64_t dim, int64_t capacity,
            int64_t oldest, int64_t at, float* scores, float* order, float* y) {
  const int64_t count = at - oldest + 1, first = oldest % capacity;
  const int64_t before = first + count <= capacity ? count : capacity - first;  // its end
  for (int64_t i = 0; i < dim; i++) order[place<C>(i)] = q[i];
  score_all(order, keys + first * dim, dim, before, scores);
  score_all(order, keys, dim, count - before, scores + before);
  const float total = soften(scores, count);
  for (int64_t i = 0; i < dim; i++) order[place<C>(i)] = 0;
  weigh_all(scores, values + first * dim, dim, before, order);
  weigh_all(scores + before, values, dim, count - before, order);
  for (int64_t i = 0; i < dim; i++) y[i] = order[place<C>(i)] / total;
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
