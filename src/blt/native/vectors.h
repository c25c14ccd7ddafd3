// Vectors of sixteen floats, by the extensions of GCC and Clang, and the types weights come in.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace blt {

constexpr int LANES = 16;
typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef uint32_t u16x32 __attribute__((vector_size(64)));
typedef uint32_t loose_u16x32 __attribute__((vector_size(64), aligned(2), may_alias));
typedef int32_t i16x32 __attribute__((vector_size(64)));
typedef uint16_t h16 __attribute__((vector_size(32), aligned(2)));
typedef int8_t b16 __attribute__((vector_size(16), aligned(1)));

struct bfloat16 { uint16_t bits; };

inline v16 load(const float* p) { return *reinterpret_cast<const v16*>(p); }
#if defined(__AVX512F__)  // compilers find these only when told
inline v16 load(const bfloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (v16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}
inline v16 load(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (v16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
#else
inline v16 load(const bfloat16* p) {
  h16 bits = *reinterpret_cast<const h16*>(p);
  return (v16)(__builtin_convertvector(bits, u16x32) << 16);
}
inline v16 load(const int8_t* p) {
  b16 bytes = *reinterpret_cast<const b16*>(p);
  return __builtin_convertvector(__builtin_convertvector(bytes, i16x32), v16);
}
#endif

// In a register: GCC would rather load it again for each use.
template <typename V>
inline V kept(V x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#endif
  return x;
}

// 32 values, or of bfloat16 the 16 at even places and the 16 at odd ones
inline void load_two(const float* p, v16& first, v16& second) {
  first = load(p);
  second = load(p + LANES);
}
inline void load_two(const bfloat16* p, v16& even, v16& odd) {
  const u16x32 bits = *reinterpret_cast<const loose_u16x32*>(p);
  even = (v16)(bits << 16);
  odd = (v16)(bits & 0xffff0000u);
}

inline float value(float x) { return x; }
inline float value(int8_t x) { return float(x); }
inline float value(bfloat16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
inline void store(float* p, float x) { *p = x; }
inline void store(bfloat16* p, float x) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  p->bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float sum(v16 x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float total = 0;
  for (int i = 0; i < LANES; i++) total += x[i];
  return total;
#endif
}

// Sums of neighbours: those of a in the lower half, those of b in the upper.
inline v16 pairs(v16 a, v16 b) {
  const i16x32 even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

// Lane i of the result is the sum of x[i]: a third of the work of sixteen sums.
inline v16 sums(v16* x) {
#pragma GCC unroll 4
  for (int count = 8; count >= 1; count /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) x[i] = pairs(x[2 * i], x[2 * i + 1]);
  return x[0];
}

// e^x to about 1e-7: a power of two, and a polynomial for the rest in -ln2/2..ln2/2
inline v16 exp(v16 x) {
  x = x < -87.0f ? v16{} - 87.0f : x;
  x = x > 88.0f ? v16{} + 88.0f : x;
  const v16 half = x < 0.0f ? v16{} - 0.5f : v16{} + 0.5f;
  const i16x32 power = __builtin_convertvector(x * 1.44269504f + half, i16x32);
  const v16 n = __builtin_convertvector(power, v16);
  const v16 rest = x - n * 0.693359375f + n * 2.12194440e-4f;
  v16 series = v16{} + 1.9875691500e-4f;
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                  5.0000001201e-1f})
    series = series * rest + c;
  series = series * rest * rest + rest + 1.0f;
  return series * (v16)((power + 127) << 23);
}

template <typename A, typename B>
inline float dot(const A* a, const B* b, int n) {
  v16 total = {};
  int i = 0;
  for (; i + LANES <= n; i += LANES) total += load(a + i) * load(b + i);
  float out = sum(total);
  for (; i < n; i++) out += value(a[i]) * value(b[i]);
  return out;
}

}  // namespace blt
