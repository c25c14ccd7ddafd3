// Threads that work together, with barriers between their moves.

#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace blt {

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

constexpr int SPINS = 20000;  // a fraction of a millisecond

// PyTorch's own OpenMP threads, found by Python: they spin for a while after each operation, so
// any other threads would have to share their cores with them.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread)();
  int (*threads)();
};
inline OpenMP openmp = {};

// Where other programs keep the processors busy, a thread waits for one that is not running, a
// hundred times per byte: then one thread alone is many times as fast as two.
constexpr int LATE = 2;     // so many long waits in one call
constexpr int ALONE = 300;  // and that many calls go without other threads
inline std::atomic<int> alone{0};

// Runs a function on all threads at once, with barriers inside. Without OpenMP, on one thread.
class Team {
 public:
  explicit Team(int size) : size_(size) {
    if (!openmp.parallel) size_ = 1;
    if (alone > 0) {
      alone--;
      size_ = 1;
    }
  }
  ~Team() {
    if (late_ >= LATE) alone = ALONE;
  }
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
      if (spins == SPINS) late_++;
      if (spins < SPINS) pause_cpu(); else std::this_thread::yield();
    }
  }

 private:
  std::atomic<int> size_;
  std::atomic<int> arrived_{0}, generation_{0}, late_{0};
};

struct Share { int64_t begin, end; };

inline Share share(int64_t count, int rank, int size, int64_t multiple = 1) {
  const int64_t units = (count + multiple - 1) / multiple;
  const int64_t begin = units * rank / size * multiple, end = units * (rank + 1) / size * multiple;
  return {begin < count ? begin : count, end < count ? end : count};
}

}  // namespace blt

// GOMP_parallel, omp_get_thread_num and omp_get_num_threads of the library that PyTorch uses
extern "C" inline __attribute__((used)) void blt_use_openmp(void* parallel, void* thread,
                                                            void* threads) {
  blt::openmp = {reinterpret_cast<decltype(blt::OpenMP::parallel)>(parallel),
                 reinterpret_cast<decltype(blt::OpenMP::thread)>(thread),
                 reinterpret_cast<decltype(blt::OpenMP::threads)>(threads)};
}
