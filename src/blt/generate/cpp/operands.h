// What rows and weights are multiplied as. Float32 is; narrow weights are where the processor has
// instructions for two numbers at a time, and else become float32 on their way. A row is made
// narrow by itself, so it does not matter what other rows there are.

#pragma once

#include <vector>

#include "vectors.h"

namespace blt {

template <typename W>
struct Operands {
  using Number = float;  // of rows
  using Vector = Floats;
  using Total = Floats;
  static constexpr int64_t STEP = LANES;  // numbers in a vector

  static Vector load_row(const float* x) { return load(x); }
  static Vector load_weights(const W* w, int64_t count) {
    if (count == STEP) return load(w);
    W some[STEP] = {};
    std::memcpy(some, w, size_t(count) * sizeof(W));
    return load(some);
  }
  static Total add(Total total, Vector weights, Vector row) {
    return add_product(total, weights, row);
  }
  static Floats floats(Total total) { return total; }
  static float narrow(const float* x, int64_t count, float* y) {  // returns what y was divided by
    std::memcpy(y, x, size_t(count) * sizeof(float));
    return 1.0f;
  }
};

#if defined(__AVX512BW__) && defined(__AVX512VL__)
inline __mmask32 first_of_32(int64_t count) { return count >= 32 ? ~0u : (1u << count) - 1; }
inline __m512 load_some(const float* x, int64_t count) {  // at most 16; zeros behind them
  return _mm512_maskz_loadu_ps(count >= LANES ? 0xffff : (1u << count) - 1, x);
}
#endif

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
template <>
struct Operands<bfloat16> {
  using Number = bfloat16;
  using Vector = __m512bh;
  using Total = __m512;
  static constexpr int64_t STEP = 32;

  static Vector load_row(const bfloat16* x) { return (Vector)_mm512_loadu_si512(x); }
  static Vector load_weights(const bfloat16* w, int64_t count) {
    return (Vector)_mm512_maskz_loadu_epi16(first_of_32(count), w);
  }
  static Total add(Total total, Vector weights, Vector row) {
    return _mm512_dpbf16_ps(total, weights, row);
  }
  static Floats floats(Total total) { return (Floats)total; }
  static float narrow(const float* x, int64_t count, bfloat16* y) {
    for (int64_t i = 0; i < count; i += LANES)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i),
                          (__m256i)_mm512_cvtneps_pbh(load_some(x + i, count - i)));
    return 1.0f;
  }
};
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
// Rows are whole numbers of at most 16 bits: sums of products with int8 are exact.
template <>
struct Operands<int8_t> {
  using Number = int16_t;
  using Vector = __m512i;
  using Total = __m512i;
  static constexpr int64_t STEP = 32;

  static Vector load_row(const int16_t* x) { return _mm512_loadu_si512(x); }
  static Vector load_weights(const int8_t* w, int64_t count) {
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(first_of_32(count), w));
  }
  static Total add(Total total, Vector weights, Vector row) {
    // GCC 12 copies the totals of the intrinsic to and fro.
    asm("vpdpwssd %2, %1, %0" : "+v"(total) : "v"(weights), "v"(row));
    return total;
  }
  static Floats floats(Total total) { return (Floats)_mm512_cvtepi32_ps(total); }
  static float narrow(const float* x, int64_t count, int16_t* y) {
    __m512 most = _mm512_set1_ps(1e-30f), nothing = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += LANES) {
      const __m512 some = load_some(x + i, count - i);
      most = _mm512_max_ps(most, _mm512_abs_ps(some));
      nothing = nothing + some * 0.0f;  // unless it is not finite
    }
    const float peak = _mm512_reduce_max_ps(most) + sum((Floats)nothing);
    const float fits = std::floor(2147483647.0f / 128.0f / float(count / LANES + 2));  // the total
    const float largest = fits < 32767.0f ? fits : 32767.0f;
    const __m512 factor = _mm512_set1_ps(largest / peak);
    for (int64_t i = 0; i < count; i += LANES) {
      const __m512i whole = _mm512_cvtps_epi32(load_some(x + i, count - i) * factor);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), _mm512_cvtepi32_epi16(whole));
    }
    return peak / largest;
  }
};
#endif

// x [rows, in] as it is multiplied with weights W, padded with zeros to whole vectors
template <typename W>
class Rows {
  using Number = typename Operands<W>::Number;

 public:
  Rows(const float* x, int64_t rows, int64_t in)
      : in_(in), stride_((in + Operands<W>::STEP - 1) / Operands<W>::STEP * Operands<W>::STEP) {
    static thread_local std::vector<Number> numbers;  // one product at a time in a thread
    static thread_local std::vector<float> scales;
    if (int64_t(numbers.size()) < rows * stride_) numbers.resize(rows * stride_);
    if (int64_t(scales.size()) < rows) scales.resize(rows);
    for (int64_t r = 0; r < rows; r++) {
      Number* row = numbers.data() + r * stride_;
      for (int64_t i = in; i < stride_; i++) row[i] = Number{};
      scales[r] = Operands<W>::narrow(x + r * in, in, row);
    }
    numbers_ = numbers.data();
    scales_ = scales.data();
  }
  const Number* row(int64_t r) const { return numbers_ + r * stride_; }
  float scale(int64_t r) const { return scales_[r]; }
  int64_t in() const { return in_; }
  int64_t stride() const { return stride_; }

 private:
  const int64_t in_, stride_;
  const Number* numbers_;
  const float* scales_;
};

}  // namespace blt
