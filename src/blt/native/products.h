// Products of a few rows with weights that are read once, and the norm before them.

#pragma once

#include "team.h"
#include "vectors.h"

namespace blt {

struct Weight {
  const void* data;    // [out, in]
  const float* scale;  // [out] of int8, else null
  int64_t kind;        // 0 float32, 1 bfloat16, 2 int8
  int64_t out, in;
};

// y[r][o] = x[r] . w[o] for OUTS outputs and ROWS rows: weights are loaded once for all rows.
template <int OUTS, int ROWS, typename W>
inline void tile(const float* x, const W* w, int64_t in, float* y, int64_t y_stride) {
  v16 total[OUTS * ROWS] = {};
  int64_t i = 0;
  for (; i + LANES <= in; i += LANES) {
    v16 rows[ROWS];
    for (int r = 0; r < ROWS; r++) rows[r] = load(x + r * in + i);
    for (int o = 0; o < OUTS; o++) {
      // Narrow rows end before the processor has found out that they are read in a row.
      if (sizeof(W) < 4 && i % (64 / int64_t(sizeof(W))) == 0)
        __builtin_prefetch(w + (o + OUTS) * in + i);  // of the next tile
      const v16 weight = load(w + o * in + i);
      for (int r = 0; r < ROWS; r++) total[o * ROWS + r] += weight * rows[r];
    }
  }
  float out[OUTS * ROWS];
  if constexpr (OUTS * ROWS == LANES) {
    const v16 all = sums(total);
    std::memcpy(out, &all, sizeof(all));
  } else {
    for (int k = 0; k < OUTS * ROWS; k++) out[k] = sum(total[k]);
  }
  for (int o = 0; o < OUTS; o++)
    for (int r = 0; r < ROWS; r++) {
      for (int64_t k = i; k < in; k++) out[o * ROWS + r] += value(w[o * in + k]) * x[r * in + k];
      y[r * y_stride + o] = out[o * ROWS + r];
    }
}

// One block of 16 outputs, or of 1 at the end of a matrix.
template <int BLOCK, typename W>
inline void block(const float* x, int64_t rows, const W* w, int64_t in, float* y, int64_t out) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    for (int o = 0; o < BLOCK; o += 4)
      tile<BLOCK == 1 ? 1 : 4, 4>(x + r * in, w + o * in, in, y + r * out + o, out);
  for (; r + 2 <= rows; r += 2)
    for (int o = 0; o < BLOCK; o += 8)
      tile<BLOCK == 1 ? 1 : 8, 2>(x + r * in, w + o * in, in, y + r * out + o, out);
  for (; r < rows; r++) tile<BLOCK, 1>(x + r * in, w, in, y + r * out, out);
}

template <typename W>
void product_of(const float* x, int64_t rows, const Weight& weight, float* y, Share outs) {
  const W* w = static_cast<const W*>(weight.data);
  int64_t o = outs.begin;
  for (; o + LANES <= outs.end; o += LANES)
    block<LANES>(x, rows, w + o * weight.in, weight.in, y + o, weight.out);
  for (; o < outs.end; o++) block<1>(x, rows, w + o * weight.in, weight.in, y + o, weight.out);
  if (weight.scale)
    for (int64_t r = 0; r < rows; r++)
      for (o = outs.begin; o < outs.end; o++) y[r * weight.out + o] *= weight.scale[o];
}

// y [rows, out] = x [rows, in] times weight, this thread's share of the outputs
inline void product(const float* x, int64_t rows, const Weight& weight, float* y, Share outs) {
  if (weight.kind == 0) product_of<float>(x, rows, weight, y, outs);
  else if (weight.kind == 1) product_of<bfloat16>(x, rows, weight, y, outs);
  else product_of<int8_t>(x, rows, weight, y, outs);
}

inline void norm(const float* x, const float* weight, float eps, int64_t dim, float* y) {
  const float scale = 1.0f / std::sqrt(dot(x, x, int(dim)) / float(dim) + eps);
  for (int64_t i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
}

}  // namespace blt
