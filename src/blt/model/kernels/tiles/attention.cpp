// Causal attention over packed documents, forward and backward, as training on a CPU takes it.
//
// A thread takes one head of one document after the other, so sums come in one order, whatever the
// number of threads, and no two threads write to one place. Scores exist for a block of queries.

#include "attention.h"
#include "team.h"

namespace {

template <typename F>
void for_each_head(const blt::Task& task, int64_t threads, F&& work) {
  blt::Team team{int(threads)};
  std::atomic<int64_t> next{0};
  team.run([&](int) {
    blt::Head head(task);
    for (int64_t unit; (unit = next++) < task.documents * task.heads;)
      work(head, unit / task.heads, unit % task.heads);
  });
}

}  // namespace

extern "C" {

int64_t blt_lanes() { return blt::LANES; }

void blt_attention(const blt::Task* task, int64_t threads) {
  for_each_head(*task, threads,
                [](blt::Head& head, int64_t d, int64_t h) { head.forward(d, h); });
}

void blt_attention_backward(const blt::Task* task, int64_t threads) {
  for_each_head(*task, threads,
                [](blt::Head& head, int64_t d, int64_t h) { head.backward(d, h); });
}

}  // extern "C"
