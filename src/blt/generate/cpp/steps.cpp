// Steps of a few rows on a CPU: what generation spends its time in.
//
// With one row per text a layer is bound by how fast its weights come from memory, and by the gaps
// between operations. So a whole stack of layers runs in one call, on threads that stay awake
// between them. Weights are float32, bfloat16 or int8, caches float32 or bfloat16, sums float32.
//
// Plain C++17 with the vector extensions of GCC; called through ctypes, see __init__.py.

#include "patches.h"
#include "stack.h"

extern "C" {

void blt_run(const blt::Stack* stack, const blt::Job* job, int64_t threads) {
  blt::Team team{int(threads)};
  blt::Run run(*stack, *job, team);
  team.run([&](int rank) { run.work(rank); });
}

void blt_pool(const blt::Pooling* pooling, const float* x, const int64_t* ends, int64_t patches,
              float* y, int64_t threads) {
  blt::Team team{int(threads)};
  blt::Pool pool(*pooling, x, ends, patches, y, team);
  team.run([&](int rank) { pool.work(rank); });
}

void blt_see(const blt::Crossings* crossings, const float* x, int64_t patches, float* seen,
             int64_t stride, int64_t threads) {
  blt::Team team{int(threads)};
  blt::See see(*crossings, x, patches, seen, stride, team);
  team.run([&](int rank) { see.work(rank); });
}

// y [rows, out] = x [rows, in] times weight
void blt_product(const blt::Weight* weight, const float* x, int64_t rows, float* y,
                 int64_t threads) {
  blt::Team team{int(threads)};
  team.run([&](int rank) {
    blt::product(x, rows, *weight, y, blt::outputs(*weight, rank, team.size()));
  });
}

}  // extern "C"
