// Products of a few rows with weights that are read once, and the norm before them.

#pragma once

#include "operands.h"
#include "team.h"

namespace blt {

struct Weight {
  const void* data;    // [out, in]
  const float* scale;  // [out] of int8, else null
  int64_t kind;        // 0 float32, 1 bfloat16, 2 int8
  int64_t out, in;
};

constexpr int BLOCK = 16;  // outputs
static_assert(BLOCK % LANES == 0, "a block is tiles of whole vectors");

// A thread's share of the outputs, in whole blocks: an output beside a block is added up in another
// order, and where those lie must not depend on the number of threads.
inline Share outputs(const Weight& weight, int rank, int size) {
  return share(weight.out, rank, size, BLOCK);
}

// Brings weights of the next outputs into the cache while these are multiplied: narrow rows end
// before the processor has found out that they are read in a row.
template <typename W>
struct Ahead {
  const W* w;
  int64_t begin, end, in;  // outputs
  void at(int64_t i) const {
    if (i % (64 / int64_t(sizeof(W)))) return;
    for (int64_t o = begin; o < end; o++) __builtin_prefetch(w + o * in + i);
  }
};

// y[r][o] = x[r] . w[o] for OUTS outputs and ROWS rows: weights are loaded once for all rows.
// Loops are unrolled by force: totals that an index picks would not stay in registers.
template <int OUTS, int ROWS, typename W>
inline void tile(const Rows<W>& x, int64_t first, const W* w, Ahead<W> ahead, float* y,
                 int64_t y_stride) {
  using Operands = blt::Operands<W>;
  const auto* const rows = x.row(first);
  const int64_t in = x.in(), stride = x.stride();
  typename Operands::Total total[OUTS * ROWS] = {};
  const auto step = [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    typename Operands::Vector row[ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) row[r] = kept(Operands::load_row(rows + r * stride + i));
#pragma GCC unroll 16
    for (int o = 0; o < OUTS; o++) {
      const auto weight = kept(Operands::load_weights(w + o * in + i, count));
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++)
        total[o * ROWS + r] = Operands::add(total[o * ROWS + r], weight, row[r]);
    }
  };
  const int64_t whole = in / Operands::STEP * Operands::STEP;
  for (int64_t i = 0; i < whole; i += Operands::STEP) {
    ahead.at(i);
    step(i, Operands::STEP);
  }
  if (whole < in) step(whole, in - whole);
  Floats totals[OUTS * ROWS];
#pragma GCC unroll 16
  for (int k = 0; k < OUTS * ROWS; k++) totals[k] = Operands::floats(total[k]);
  float out[OUTS * ROWS];
  if constexpr (OUTS * ROWS == LANES) {
    const Floats all = sums(totals);
    std::memcpy(out, &all, sizeof(all));
  } else {
#pragma GCC unroll 16
    for (int k = 0; k < OUTS * ROWS; k++) out[k] = sum(totals[k]);
  }
  for (int o = 0; o < OUTS; o++)
    for (int r = 0; r < ROWS; r++) y[r * y_stride + o] = out[o * ROWS + r] * x.scale(first + r);
}

// A block of outputs for ROWS of the rows; each tile asks for its part of the next block.
template <int OUTS, int ROWS, typename W>
inline void pass(const Rows<W>& x, int64_t rows, int64_t r, const W* w, int64_t coming, float* y,
                 int64_t out) {
  constexpr int HIGH = OUTS == 1 ? 1 : LANES / ROWS;
  for (int o = 0; o < OUTS; o += HIGH) {
    const int64_t all = rows * OUTS, done = r * OUTS + o * ROWS;
    const Ahead<W> ahead{w + OUTS * x.in(), coming * done / all,
                         coming * (done + HIGH * ROWS) / all, x.in()};
    tile<HIGH, ROWS>(x, r, w + o * x.in(), ahead, y + r * out + o, out);
  }
}

// A block of outputs, or one output at the end of a matrix; ``more`` outputs follow.
template <int OUTS, typename W>
inline void block(const Rows<W>& x, int64_t rows, const W* w, int64_t more, float* y, int64_t out) {
  const bool found_out = sizeof(W) == 4 && rows == 1;  // long rows, read at one go
  const int64_t coming = found_out ? 0 : more < OUTS ? more : OUTS;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) pass<OUTS, 4>(x, rows, r, w, coming, y, out);
  for (; r + 2 <= rows; r += 2) pass<OUTS, 2>(x, rows, r, w, coming, y, out);
  for (; r < rows; r++) pass<OUTS, 1>(x, rows, r, w, coming, y, out);
}

template <typename W>
void product_of(const float* numbers, int64_t rows, const Weight& weight, float* y, Share outs) {
  const W* w = static_cast<const W*>(weight.data);
  const Rows<W> x(numbers, rows, weight.in);
  int64_t o = outs.begin;
  for (; o + BLOCK <= outs.end; o += BLOCK)
    block<BLOCK>(x, rows, w + o * weight.in, outs.end - o - BLOCK, y + o, weight.out);
  for (; o < outs.end; o++)
    block<1>(x, rows, w + o * weight.in, outs.end - o - 1, y + o, weight.out);
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
