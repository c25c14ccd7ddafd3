// One head of one document: causal attention of its rows, and the gradients.

#pragma once

#include <algorithm>
#include <vector>

#include "products.h"
#include "softmax.h"

namespace blt {

constexpr int64_t QUERIES = 32;      // of a block; they meet their keys in cache
constexpr int64_t KEYS = 2 * LANES;  // of a column of the scores

struct Rows {  // [N, heads, dim] float32, each head's numbers in order
  const float* data;
  int64_t row, head;
};

struct Task {
  Rows q, k, v, g;                // queries are scaled already; g: the gradient of the output
  float *out, *dq, *dk, *dv;      // [N, heads, dim] in order
  const int64_t* offsets;         // [documents + 1]
  int64_t documents, heads, dim;
  int64_t window;                 // key j is visible to query i iff 0 <= i - j < window
};

// Keys (or values) of a document with numbers of KEYS keys side by side, as far as a block sees.
class Columns {
 public:
  // The blocks of a document, so many of which are kept
  void begin(const float* rows, int64_t stride, int64_t count, int64_t dim, int64_t kept) {
    rows_ = rows, stride_ = stride, count_ = count, dim_ = dim, kept_ = kept, packed_ = 0;
    data_.resize(size_t(kept * dim * KEYS));
  }
  // Have all blocks before ``end`` that are from ``begin`` on
  void reach(int64_t begin, int64_t end) {
    for (packed_ = std::max(packed_, begin); packed_ < end; packed_++) pack(packed_);
  }
  const float* block(int64_t b) const { return data_.data() + b % kept_ * dim_ * KEYS; }

 private:
  void pack(int64_t b) {
    float* to = data_.data() + b % kept_ * dim_ * KEYS;
    const float* from = rows_ + b * KEYS * stride_;
    if (const int64_t left = count_ - b * KEYS; left < KEYS) {
      for (int64_t d = 0; d < dim_; d++)
        for (int64_t j = 0; j < KEYS; j++) to[d * KEYS + j] = j < left ? from[j * stride_ + d] : 0;
      return;
    }
    for (int64_t d = 0; d < dim_; d += LANES)
      for (int64_t j = 0; j < KEYS; j += LANES)
        turn(from + j * stride_ + d, stride_, to + d * KEYS + j, KEYS);
  }
  const float* rows_ = nullptr;
  int64_t stride_ = 0, count_ = 0, dim_ = 0, kept_ = 1, packed_ = 0;
  std::vector<float> data_;
};

// What a thread needs to work on one head of one document after the other
class Head {
 public:
  explicit Head(const Task& task) : t_(task) {}

  void forward(int64_t document, int64_t head) {
    begin(document, head);
    for (first_ = 0; first_ < count_; first_ += QUERIES) {
      weigh();
      each_tile([&](int64_t r, int rows, int64_t from, int64_t to) {
        multiply<false>({p_.data() + r * width_ + from - lead_, width_, 1},
                        {values_ + from * t_.v.row, t_.v.row, 1}, to - from, t_.dim,
                        t_.out + place(first_ + r), row(), rows, scale_ + r);
      });
    }
  }

  void backward(int64_t document, int64_t head) {
    begin(document, head);
    value_columns_.begin(values_, t_.v.row, count_, t_.dim, kept_);
    for (int64_t i = 0; i < count_; i++) {
      std::fill_n(t_.dk + place(i), t_.dim, 0.0f);
      std::fill_n(t_.dv + place(i), t_.dim, 0.0f);
    }
    for (first_ = 0; first_ < count_; first_ += QUERIES) {
      weigh();
      gather(t_.g, g_);
      value_columns_.reach(lead_ / KEYS, last_block());
      dp_.resize(p_.size());
      scores(g_, value_columns_, dp_.data());
      differentiate();
      each_tile([&](int64_t r, int rows, int64_t from, int64_t to) {
        multiply<false>({dp_.data() + r * width_ + from - lead_, width_, 1},
                        {keys_ + from * t_.k.row, t_.k.row, 1}, to - from, t_.dim,
                        t_.dq + place(first_ + r), row(), rows);
      });
      give_back(dp_.data(), q_, t_.dk);
      give_back(p_.data(), g_, t_.dv);
    }
  }

 private:
  int64_t row() const { return t_.heads * t_.dim; }
  int64_t place(int64_t i) const { return (start_ + i) * row() + head_ * t_.dim; }
  int64_t queries() const { return std::min(QUERIES, count_ - first_); }
  int64_t last_block() const { return (first_ + queries() + KEYS - 1) / KEYS; }
  int64_t oldest(int64_t i) const { return std::max<int64_t>(0, i - t_.window + 1); }

  void begin(int64_t document, int64_t head) {
    start_ = t_.offsets[document], count_ = t_.offsets[document + 1] - start_, head_ = head;
    keys_ = t_.k.data + start_ * t_.k.row + head * t_.k.head;
    values_ = t_.v.data + start_ * t_.v.row + head * t_.v.head;
    kept_ = std::min(t_.window, count_) / KEYS + QUERIES / KEYS + 2;
    key_columns_.begin(keys_, t_.k.row, count_, t_.dim, kept_);
  }

  // Rows of this block, and zeros where there are no more
  void gather(const Rows& x, std::vector<float>& to) const {
    to.assign(size_t(QUERIES * t_.dim), 0.0f);
    const float* from = x.data + (start_ + first_) * x.row + head_ * x.head;
    for (int64_t i = 0; i < queries(); i++)
      std::copy_n(from + i * x.row, t_.dim, to.data() + i * t_.dim);
  }

  // ROWS rows at a time, how many of them there are, and which keys they see
  template <typename F>
  void each_tile(F&& work) const {
    for (int64_t r = 0; r < queries(); r += ROWS) {
      const int64_t rows = std::min<int64_t>(ROWS, queries() - r);
      work(r, int(rows), oldest(first_ + r), first_ + r + rows);
    }
  }

  // a [QUERIES, dim] times columns → [QUERIES, width]
  void scores(const std::vector<float>& a, const Columns& columns, float* to) const {
    for (int64_t b = lead_ / KEYS; b < last_block(); b++)
      for (int64_t r = 0; r < queries(); r += ROWS)
        multiply_tile<2, false>({a.data() + r * t_.dim, t_.dim, 1}, {columns.block(b), KEYS, 1},
                                t_.dim, to + r * width_ + b * KEYS - lead_, width_, ROWS, nullptr);
  }

  // p_: e^(score - most), 0 for what is not seen; scale_: what makes it add up to 1
  void weigh() {
    lead_ = oldest(first_) / KEYS * KEYS;
    width_ = last_block() * KEYS - lead_;
    gather(t_.q, q_);
    key_columns_.reach(lead_ / KEYS, last_block());
    p_.resize(size_t(QUERIES * width_));
    scores(q_, key_columns_, p_.data());
    for (int64_t r = 0; r < queries(); r++) {
      float* p = p_.data() + r * width_;
      const int64_t i = first_ + r;
      std::fill(p, p + oldest(i) - lead_, -INFINITY);
      std::fill(p + i + 1 - lead_, p + width_, -INFINITY);
      scale_[r] = 1.0f / soften(p, width_);
    }
  }

  // p_ becomes the probabilities, dp_ the gradient of the scores
  void differentiate() {
    for (int64_t r = 0; r < queries(); r++) {
      float *p = p_.data() + r * width_, *dp = dp_.data() + r * width_;
      Floats total = {};
      for (int64_t c = 0; c < width_; c += LANES) {
        const Floats weight = load(p + c) * scale_[r];
        std::memcpy(p + c, &weight, sizeof(weight));
        total = add_product(total, weight, load(dp + c));
      }
      const float mean = sum(total);
      for (int64_t c = 0; c < width_; c += LANES) {
        const Floats some = load(p + c) * (load(dp + c) - mean);
        std::memcpy(dp + c, &some, sizeof(some));
      }
    }
  }

  // y of the keys += weights [queries, width], turned, times x [queries, dim]
  void give_back(const float* weights, const std::vector<float>& x, float* y) const {
    const int64_t end = first_ + queries();
    for (int64_t j = lead_; j < end; j += ROWS) {
      // queries that see one of these keys
      const int64_t from = std::max<int64_t>(0, j - first_);
      const int64_t to = std::min(queries(), j + ROWS - 1 + t_.window - first_);
      if (to <= from) continue;
      multiply<true>({weights + from * width_ + j - lead_, 1, width_},
                     {x.data() + from * t_.dim, t_.dim, 1}, to - from, t_.dim, y + place(j), row(),
                     int(std::min<int64_t>(ROWS, end - j)));
    }
  }

  const Task& t_;
  int64_t start_ = 0, count_ = 0, head_ = 0, kept_ = 0;  // of the document
  int64_t first_ = 0, lead_ = 0, width_ = 0;  // of the block: query, key, columns of the scores
  const float *keys_ = nullptr, *values_ = nullptr;
  Columns key_columns_, value_columns_;
  std::vector<float> q_, g_, p_, dp_;
  float scale_[QUERIES] = {};
};

}  // namespace blt
