// Transformer layers for a few rows on a CPU: what generation spends its time in.
//
// With one row per text a layer is bound by how fast its weights come from memory, and by the gaps
// between operations. So a whole stack of layers runs in one call, on threads that stay awake
// between them. Weights are float32, bfloat16 or int8, caches float32 or bfloat16, sums float32.
//
// Plain C++17 with the vector extensions of GCC and Clang; called through ctypes, see __init__.py.

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef uint32_t u16x32 __attribute__((vector_size(64)));
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
  for (int count = 8; count >= 1; count /= 2)
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

}  // namespace

// --- what Python hands over; keep in step with __init__.py --------------------------------------

extern "C" {

struct Weight {
  const void* data;    // [out, in]
  const float* scale;  // [out] of int8, else null
  int64_t kind;        // 0 float32, 1 bfloat16, 2 int8
  int64_t out, in;
};

struct Layer {
  const float *attention_norm, *ff_norm, *cross_norm;  // cross_norm null: no cross-attention
  Weight qkv, attention_out, gate_up, down, cross_query, cross_out;
};

struct Stack {
  const Layer* layers;
  const float* frequencies;  // [head_dim / 2] of the rotations
  int64_t depth, dim, heads, cross_heads;
  float eps;
};

struct Job {
  int64_t rows;
  float* x;                  // [rows, dim] in and out
  const int64_t* positions;  // [rows] for rotations
  const int64_t* at;         // [rows] where keys go: slot at % capacity
  const int64_t* oldest;     // [rows] attends to oldest..at
  const int64_t* text;       // [rows] whose caches
  void* const* caches;       // [depth, texts, 2] keys and values, each [heads, capacity, head_dim]
  const int64_t* capacity;   // [texts]
  int64_t texts;
  int64_t cache_kind;        // 0 float32, 1 bfloat16
  const float* const* seen;  // [crossed layers, 2] k and v, each [patches, slices, dim]
  const int64_t* seen_ids;   // [rows]
  int64_t slices;
};

}  // extern "C"

namespace {

// --- threads ----------------------------------------------------------------------------------------

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

constexpr int SPINS = 20000;  // about a millisecond

// PyTorch's own OpenMP threads, found by Python: they spin for a while after each operation, so
// any other threads would have to share their cores with them.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread)();
  int (*threads)();
};
OpenMP openmp = {};

// Runs a function on all threads at once, with barriers inside. Without OpenMP, on one thread.
class Team {
 public:
  explicit Team(int size) : size_(openmp.parallel ? size : 1) {}
  int size() const { return size_.load(std::memory_order_relaxed); }

  template <typename F>
  void run(F&& work) {
    if (size() == 1) { work(0); return; }
    struct Call { Team* team; F* work; } call{this, &work};
    openmp.parallel(
        [](void* argument) {
          Call* call = static_cast<Call*>(argument);
          call->team->size_.store(openmp.threads(), std::memory_order_relaxed);  // may be fewer
          (*call->work)(openmp.thread());
        },
        &call, unsigned(size()), 0);
  }

  void barrier() {
    const int size = this->size();
    if (size == 1) return;
    const int generation = generation_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
      return;
    }
    for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; spins++) {
      if (spins < SPINS) pause_cpu(); else std::this_thread::yield();
    }
  }

 private:
  std::atomic<int> size_;
  std::atomic<int> arrived_{0}, generation_{0};
};

struct Share { int64_t begin, end; };

Share share(int64_t count, int rank, int size, int64_t multiple = 1) {
  const int64_t units = (count + multiple - 1) / multiple;
  const int64_t begin = units * rank / size * multiple, end = units * (rank + 1) / size * multiple;
  return {begin < count ? begin : count, end < count ? end : count};
}

// --- products -------------------------------------------------------------------------------------

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
void product(const float* x, int64_t rows, const Weight& weight, float* y, Share outs) {
  if (weight.kind == 0) product_of<float>(x, rows, weight, y, outs);
  else if (weight.kind == 1) product_of<bfloat16>(x, rows, weight, y, outs);
  else product_of<int8_t>(x, rows, weight, y, outs);
}

void norm(const float* x, const float* weight, float eps, int64_t dim, float* y) {
  const float scale = 1.0f / std::sqrt(dot(x, x, int(dim)) / float(dim) + eps);
  for (int64_t i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
}

// --- attention ------------------------------------------------------------------------------------

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

// --- a stack of layers ------------------------------------------------------------------------------

class Run {
 public:
  Run(const Stack& stack, const Job& job, Team& team)
      : stack_(stack), job_(job), team_(team), head_dim_(stack.dim / stack.heads) {
    int64_t widest = 3 * stack.dim, longest = 0;
    for (int64_t l = 0; l < stack.depth; l++)
      if (stack.layers[l].gate_up.out > widest) widest = stack.layers[l].gate_up.out;
    for (int64_t r = 0; r < job.rows; r++)
      if (job.at[r] - job.oldest[r] >= longest) longest = job.at[r] - job.oldest[r] + 1;
    normed_.resize(job.rows * stack.dim);
    wide_.resize(job.rows * widest);
    attended_.resize(job.rows * stack.dim);
    update_.resize(job.rows * (widest / 2 > stack.dim ? widest / 2 : stack.dim));
    scores_.assign(team.size(), std::vector<float>(longest + LANES));
    rope_.resize(job.rows * head_dim_);
    for (int64_t r = 0; r < job.rows; r++)
      for (int64_t i = 0; i < head_dim_ / 2; i++) {
        const float angle = float(job.positions[r]) * stack.frequencies[i];
        rope_[r * head_dim_ + 2 * i] = std::cos(angle);
        rope_[r * head_dim_ + 2 * i + 1] = std::sin(angle);
      }
  }

  void work(int rank) {
    for (int64_t l = 0; l < stack_.depth; l++) {
      const Layer& layer = stack_.layers[l];
      if (layer.cross_norm) cross(layer, l, rank);
      self(layer, l, rank);
      feed_forward(layer, rank);
    }
  }

 private:
  Share rows(int rank) const { return share(job_.rows, rank, team_.size()); }
  float* row(std::vector<float>& v, int64_t r) const { return v.data() + r * stack_.dim; }

  void norms(const float* weight, int rank) {
    // Rows are normed by every thread for itself when there are few: cheaper than a barrier.
    if (job_.rows == 1) {
      if (rank == 0) norm(job_.x, weight, stack_.eps, stack_.dim, normed_.data());
    } else {
      const Share mine = rows(rank);
      for (int64_t r = mine.begin; r < mine.end; r++)
        norm(job_.x + r * stack_.dim, weight, stack_.eps, stack_.dim, row(normed_, r));
    }
    team_.barrier();
  }

  void product_all(const float* x, const Weight& weight, float* y, int rank) {
    product(x, job_.rows, weight, y, share(weight.out, rank, team_.size(), LANES));
    team_.barrier();
  }

  // x += factor * x + y, where each thread has the outputs that it computed itself
  void add(const float* x, const Weight& weight, float factor, int rank) {
    const Share mine = share(weight.out, rank, team_.size(), LANES);
    product(x, job_.rows, weight, update_.data(), mine);
    for (int64_t r = 0; r < job_.rows; r++)
      for (int64_t o = mine.begin; o < mine.end; o++) {
        float& old = job_.x[r * stack_.dim + o];
        old = factor * old + update_[r * weight.out + o];
      }
    team_.barrier();
  }

  void self(const Layer& layer, int64_t l, int rank) {
    norms(layer.attention_norm, rank);
    product_all(normed_.data(), layer.qkv, wide_.data(), rank);
    if (job_.cache_kind == 0) heads<float>(l, rank); else heads<bfloat16>(l, rank);
    add(attended_.data(), layer.attention_out, 1.0f, rank);
  }

  template <typename C>
  C* cache(int64_t l, int64_t text, int64_t which) const {
    return static_cast<C*>(job_.caches[(l * job_.texts + text) * 2 + which]);
  }

  // A thread has whole heads of one text, so it may read what it has just written.
  template <typename C>
  void heads(int64_t l, int rank) {
    const int64_t heads = stack_.heads, dim = head_dim_;
    int64_t first = 0;
    while (first < job_.rows) {  // rows of one text lie together
      const int64_t text = job_.text[first];
      int64_t last = first;
      while (last < job_.rows && job_.text[last] == text) last++;
      for (int64_t h = 0; h < heads; h++) {
        if ((text * heads + h) % team_.size() != rank) continue;
        const int64_t capacity = job_.capacity[text];
        C* keys = cache<C>(l, text, 0) + h * capacity * dim;
        C* values = cache<C>(l, text, 1) + h * capacity * dim;
        for (int64_t r = first; r < last; r++) {
          const int64_t slot = job_.at[r] % capacity;
          float* qkv = wide_.data() + r * 3 * stack_.dim + h * dim;
          rotate(qkv, r, 1.0f / std::sqrt(float(dim)));
          rotate(qkv + stack_.dim, r, 1.0f);
          for (int64_t i = 0; i < dim; i++) {
            store(keys + slot * dim + i, qkv[stack_.dim + i]);
            store(values + slot * dim + i, qkv[2 * stack_.dim + i]);
          }
        }
        for (int64_t r = first; r < last; r++)
          attend(wide_.data() + r * 3 * stack_.dim + h * dim, keys, values, dim, capacity,
                 job_.oldest[r], job_.at[r], scores_[rank].data(), row(attended_, r) + h * dim);
      }
      first = last;
    }
    team_.barrier();
  }

  void rotate(float* x, int64_t r, float scale) const {
    const float* rope = rope_.data() + r * head_dim_;
    for (int64_t i = 0; i < head_dim_; i += 2) {
      const float a = x[i] * scale, b = x[i + 1] * scale;
      x[i] = a * rope[i] - b * rope[i + 1];
      x[i + 1] = a * rope[i + 1] + b * rope[i];
    }
  }

  void feed_forward(const Layer& layer, int rank) {
    norms(layer.ff_norm, rank);
    product_all(normed_.data(), layer.gate_up, wide_.data(), rank);
    const int64_t ff = layer.down.in;
    const Share mine = share(ff, rank, team_.size(), LANES);
    for (int64_t r = 0; r < job_.rows; r++) {
      float* gate = wide_.data() + r * 2 * ff;
      int64_t i = mine.begin;
      for (; i + LANES <= mine.end; i += LANES) {
        const v16 x = load(gate + i), y = x / (1.0f + exp(-x)) * load(gate + ff + i);
        std::memcpy(&update_[r * ff + i], &y, sizeof(y));
      }
      for (; i < mine.end; i++)
        update_[r * ff + i] = gate[i] / (1.0f + std::exp(-gate[i])) * gate[ff + i];
    }
    team_.barrier();
    product_down(layer.down, rank);
  }

  void product_down(const Weight& weight, int rank) {
    const Share mine = share(weight.out, rank, team_.size(), LANES);
    product(update_.data(), job_.rows, weight, wide_.data(), mine);
    for (int64_t r = 0; r < job_.rows; r++)
      for (int64_t o = mine.begin; o < mine.end; o++)
        job_.x[r * stack_.dim + o] += wide_[r * weight.out + o];
    team_.barrier();
  }

  // Each byte attends to the slices of its one patch; the update is 2x + attention.
  void cross(const Layer& layer, int64_t l, int rank) {
    norms(layer.cross_norm, rank);
    product_all(normed_.data(), layer.cross_query, wide_.data(), rank);
    const int64_t dim = stack_.dim / stack_.cross_heads, slices = job_.slices;
    const float scale = 1.0f / std::sqrt(float(dim));
    const Share mine = rows(rank);
    for (int64_t r = mine.begin; r < mine.end; r++)
      for (int64_t h = 0; h < stack_.cross_heads; h++) {
        const int64_t patch = job_.seen_ids[r] * slices * stack_.dim + h * dim;
        const float* k = job_.seen[2 * l] + patch;
        const float* v = job_.seen[2 * l + 1] + patch;
        const float* q = wide_.data() + r * stack_.dim + h * dim;
        float weights[64], peak = -INFINITY, total = 0;
        for (int64_t s = 0; s < slices; s++) {
          weights[s] = scale * dot(q, k + s * stack_.dim, int(dim));
          if (weights[s] > peak) peak = weights[s];
        }
        for (int64_t s = 0; s < slices; s++) total += weights[s] = std::exp(weights[s] - peak);
        float* y = row(attended_, r) + h * dim;
        for (int64_t i = 0; i < dim; i++) {
          float out = 0;
          for (int64_t s = 0; s < slices; s++) out += weights[s] * v[s * stack_.dim + i];
          y[i] = out / total;
        }
      }
    team_.barrier();
    add(attended_.data(), layer.cross_out, 2.0f, rank);
  }

  const Stack& stack_;
  const Job& job_;
  Team& team_;
  const int64_t head_dim_;
  std::vector<float> normed_, wide_, attended_, update_, rope_;
  std::vector<std::vector<float>> scores_;
};

}  // namespace

extern "C" {

// GOMP_parallel, omp_get_thread_num and omp_get_num_threads of the library that PyTorch uses
void blt_use_openmp(void* parallel, void* thread, void* threads) {
  openmp = {reinterpret_cast<decltype(OpenMP::parallel)>(parallel),
            reinterpret_cast<decltype(OpenMP::thread)>(thread),
            reinterpret_cast<decltype(OpenMP::threads)>(threads)};
}

void blt_run(const Stack* stack, const Job* job, int64_t threads) {
  Team team{int(threads)};
  Run run(*stack, *job, team);
  team.run([&](int rank) { run.work(rank); });
}

// y [rows, dim] = a byte's embedding plus those of the n-grams that end in it
// back: [reach, rows] ids, the byte's own first; sizes: [count] of n-grams; tables in order of
// hash function, then size, each of hash_rows rows.
void blt_embed(const int64_t* back, int64_t rows, const float* bytes, const float* ngrams,
               int64_t dim, const int64_t* sizes, int64_t count, const int64_t* primes,
               int64_t functions, int64_t hash_rows, float* y) {
  for (int64_t r = 0; r < rows; r++) {
    float* out = y + r * dim;
    std::memcpy(out, bytes + back[r] * dim, dim * sizeof(float));
    for (int64_t table = 0; table < functions * count; table++) {
      uint64_t hash = 0;  // wraps as int64 does
      for (int64_t j = 0; j < sizes[table % count]; j++)
        hash = hash * uint64_t(primes[table / count]) + uint64_t(back[j * rows + r]);
      int64_t row = int64_t(hash) % hash_rows;
      if (row < 0) row += hash_rows;
      const float* ngram = ngrams + (table * hash_rows + row) * dim;
      for (int64_t i = 0; i < dim; i++) out[i] += ngram[i];
    }
  }
}

// y [rows, dim] = RMSNorm of x [rows, dim]
void blt_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t dim, float* y) {
  for (int64_t r = 0; r < rows; r++) norm(x + r * dim, weight, eps, dim, y + r * dim);
}

// y [rows, out] = x [rows, in] times weight
void blt_product(const Weight* weight, const float* x, int64_t rows, float* y, int64_t threads) {
  Team team{int(threads)};
  team.run([&](int rank) {
    product(x, rows, *weight, y, share(weight->out, rank, team.size(), LANES));
  });
}

}  // extern "C"
