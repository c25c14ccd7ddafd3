// Vectors as wide as the processor's, by the extensions of GCC (not Clang, which lacks
// __builtin_shuffle), and the types weights come in. Of wider ones GCC makes copies in memory.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#if defined(__AVX2__)  // as wherever AVX-512 is
#include <immintrin.h>
#endif

namespace blt {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint32_t LooseWords __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

struct bfloat16 { uint16_t bits; };

inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
#if defined(__AVX512F__)  // compilers find these only when told
inline Floats load(const bfloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}
inline Floats load(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
#elif defined(__AVX2__)
inline Floats load(const bfloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
}
inline Floats load(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
#else
inline Floats load(const bfloat16* p) {
  Halves bits = *reinterpret_cast<const Halves*>(p);
  return (Floats)(__builtin_convertvector(bits, Words) << 16);
}
inline Floats load(const int8_t* p) {
  Bytes bytes = *reinterpret_cast<const Bytes*>(p);
  return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
}
#endif

// Rounded once: tuned for some processors, GCC does so in one loop and rounds twice in another.
inline Floats add_product(Floats total, Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)total);
#elif defined(__AVX2__) && defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)total);
#else
  return total + a * b;
#endif
}

// In a register: GCC would rather load it again for each use.
template <typename V>
inline V kept(V x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__AVX2__)
  asm("" : "+x"(x));
#endif
  return x;
}

// Two vectors of values, or of bfloat16 those at even places and those at odd ones
inline void load_two(const float* p, Floats& first, Floats& second) {
  first = load(p);
  second = load(p + LANES);
}
inline void load_two(const bfloat16* p, Floats& even, Floats& odd) {
  const Words bits = *reinterpret_cast<const LooseWords*>(p);
  even = (Floats)(bits << 16);
  odd = (Floats)(bits & 0xffff0000u);
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
inline float sum(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float total = 0;
  for (int i = 0; i < LANES; i++) total += x[i];
  return total;
#endif
}

inline float greatest(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)x);
#else
  float most = x[0];
  for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
  return most;
#endif
}

// Sums of neighbours: those of a in the lower half, those of b in the upper.
inline Floats pairs(Floats a, Floats b) {
#if defined(__AVX512F__)
  const Ints even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
#else
  const Ints even = {0, 2, 4, 6, 8, 10, 12, 14};
#endif
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

// Lane i of the result is the sum of x[i]: a third of the work of as many sums.
inline Floats sums(Floats* x) {
#pragma GCC unroll 4
  for (int count = LANES / 2; count >= 1; count /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) x[i] = pairs(x[2 * i], x[2 * i + 1]);
  return x[0];
}

// e^x to about 1e-7: a power of two, and a polynomial for the rest in -ln2/2..ln2/2
inline Floats exp(Floats x) {
  x = x < -87.0f ? Floats{} - 87.0f : x;
  x = x > 88.0f ? Floats{} + 88.0f : x;
  const Floats half = x < 0.0f ? Floats{} - 0.5f : Floats{} + 0.5f;
  const Ints power = __builtin_convertvector(x * 1.44269504f + half, Ints);
  const Floats n = __builtin_convertvector(power, Floats);
  const Floats rest = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats series = Floats{} + 1.9875691500e-4f;
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                  5.0000001201e-1f})
    series = series * rest + c;
  series = series * rest * rest + rest + 1.0f;
  return series * (Floats)((power + 127) << 23);
}

template <typename A, typename B>
inline float dot(const A* a, const B* b, int n) {
  Floats total = {};
  int i = 0;
  for (; i + LANES <= n; i += LANES) total += load(a + i) * load(b + i);
  float out = sum(total);
  for (; i < n; i++) out += value(a[i]) * value(b[i]);
  return out;
}

}  // namespace blt
