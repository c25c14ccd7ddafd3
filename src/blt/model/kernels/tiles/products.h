// Products of small matrices that lie in cache, their results in registers.

#pragma once

#include "vectors.h"

namespace blt {

#if defined(__AVX512F__)
constexpr int ROWS = 8;  // of a result at a time: two vectors of each fill half the registers
#else
constexpr int ROWS = 4;
#endif

struct Matrix {  // numbers ``row`` apart from row to row, and ``step`` from one to the next
  const float* data;
  int64_t row, step;
};

// [LANES, LANES] with rows and columns exchanged
inline void turn(const float* from, int64_t from_row, float* to, int64_t to_row) {
  Floats rows[LANES], next[LANES];
  for (int i = 0; i < LANES; i++) rows[i] = load(from + i * from_row);
  // Numbers of two halves are interleaved, as often as the number of a row has bits.
  Ints low = {}, high = {};
  for (int i = 0; i < LANES; i++) {
    low[i] = i / 2 + i % 2 * LANES;
    high[i] = low[i] + LANES / 2;
  }
#pragma GCC unroll 4
  for (int step = 1; step < LANES; step *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; i++) {
      next[2 * i] = __builtin_shuffle(rows[i], rows[i + LANES / 2], low);
      next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + LANES / 2], high);
    }
    std::memcpy(rows, next, sizeof(rows));
  }
  for (int i = 0; i < LANES; i++) std::memcpy(to + i * to_row, rows + i, sizeof(Floats));
}

// y [rows, WIDE vectors] = scale[r] * a [rows, count] times b [count, WIDE vectors], or added to y.
// There are ROWS rows in a, of which ``rows`` are written.
template <int WIDE, bool ADD>
inline void multiply_tile(Matrix a, Matrix b, int64_t count, float* y, int64_t y_row, int rows,
                          const float* scale) {
  Floats total[ROWS][WIDE] = {};
  const float* from = a.data;
  const float* with = b.data;
  for (int64_t t = 0; t < count; t++, from += a.step, with += b.row) {
    Floats vector[WIDE];
#pragma GCC unroll 2
    for (int v = 0; v < WIDE; v++) vector[v] = kept(load(with + v * LANES));
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const Floats one = from[r * a.row] - Floats{};  // a sum would add: -0 + 0 is 0
#pragma GCC unroll 2
      for (int v = 0; v < WIDE; v++) total[r][v] = add_product(total[r][v], one, vector[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    if (r >= rows) break;
#pragma GCC unroll 2
    for (int v = 0; v < WIDE; v++) {
      float* out = y + r * y_row + v * LANES;
      Floats some = scale ? total[r][v] * scale[r] : total[r][v];
      if (ADD) some += load(out);
      std::memcpy(out, &some, sizeof(some));
    }
  }
}

// The same for any width that is a multiple of LANES
template <bool ADD>
inline void multiply(Matrix a, Matrix b, int64_t count, int64_t width, float* y, int64_t y_row,
                     int rows, const float* scale = nullptr) {
  int64_t c = 0;
  for (; c + 2 * LANES <= width; c += 2 * LANES)
    multiply_tile<2, ADD>(a, {b.data + c, b.row, 1}, count, y + c, y_row, rows, scale);
  if (c < width)
    multiply_tile<1, ADD>(a, {b.data + c, b.row, 1}, count, y + c, y_row, rows, scale);
}

}  // namespace blt
