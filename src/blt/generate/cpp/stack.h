// A whole stack of layers for a few rows, from bytes or states to states or logits.

#pragma once

#include <algorithm>
#include <vector>

#include "attention.h"
#include "products.h"

namespace blt {

// What Python hands over; keep in step with __init__.py.

struct Layer {
  const float *attention_norm, *ff_norm, *cross_norm;  // cross_norm null: no cross-attention
  const float *qkv_bias, *q_norm, *k_norm;             // null: there is none
  Weight qkv, attention_out, gate_up, down, cross_query, cross_out;
};

struct Embedding {  // of bytes and the n-grams that end in them
  const float* bytes;   // [ids, dim]
  const float* ngrams;  // [functions * count * rows, dim], by hash function, then size
  const int64_t *sizes, *primes;  // [count], [functions]
  int64_t count, functions, rows, reach;
};

struct Stack {
  const Layer* layers;
  const float* frequencies;   // [head_dim / 2] of the rotations
  const Embedding* embedding;  // null: reads states
  const Weight* projection;    // of states that are read; null: none
  const float* norm;           // before the head; null: writes states
  Weight head;
  int64_t depth, dim, heads, kv_heads, head_dim, cross_heads, window;  // window 0: sees everything
  int64_t norm_width;   // features that a norm of queries or keys is over; 0: over all of them
  int64_t norms_after;  // 1: attention and feed-forward have their norm on what they give
  float eps;
};

struct Job {
  int64_t rows;
  const void* input;         // states [rows, in], or ids [texts read, reach - 1 + each]
  int64_t each;              // ids of each text
  float* x;                  // [rows, dim]
  float* logits;             // [rows, ids]
  float* entropies;          // [rows] in nats, of the logits; may be null
  const int64_t* positions;  // [rows] for rotations
  const int64_t* at;         // [rows] where keys go: slot at % capacity
  const int64_t* starts;     // [rows] sees nothing before; null: there is no such limit
  const int64_t* text;       // [rows] whose caches; rows of one text lie together
  void* const* caches;       // [texts], each [layers, keys and values, kv_heads, capacity, head_dim]
  const int64_t* capacity;   // [texts]
  int64_t first_layer;       // in the caches
  int64_t cache_kind;        // 0 float32, 1 bfloat16
  const float* seen;         // [crossed layers, k and v, patches, slices, dim]
  int64_t seen_stride;       // from k to v, and on to the next layer, in floats
  const int64_t* seen_ids;   // [rows]
  int64_t slices;
};

class Run {
 public:
  Run(const Stack& stack, const Job& job, Team& team)
      : stack_(stack), job_(job), team_(team), head_dim_(stack.head_dim),
        queries_(stack.heads * stack.head_dim), keys_(stack.kv_heads * stack.head_dim) {
    int64_t widest = std::max(3 * stack.dim, queries_ + 2 * keys_), longest = 0;
    for (int64_t l = 0; l < stack.depth; l++)
      if (stack.layers[l].gate_up.out > widest) widest = stack.layers[l].gate_up.out;
    for (int64_t r = 0; r < job.rows; r++)
      if (job.at[r] - oldest(r) >= longest) longest = job.at[r] - oldest(r) + 1;
    normed_.resize(job.rows * stack.dim);
    wide_.resize(job.rows * widest);
    attended_.resize(job.rows * std::max(stack.dim, queries_));
    update_.resize(job.rows * (widest / 2 > stack.dim ? widest / 2 : stack.dim));
    scores_.assign(team.size(), std::vector<float>(longest + LANES));
    order_.assign(team.size(), std::vector<float>((head_dim_ / PART + 1) * PART));
    rope_.resize(job.rows * head_dim_);
    for (int64_t r = 0; r < job.rows; r++)
      for (int64_t i = 0; i < head_dim_ / 2; i++) {
        const float angle = float(job.positions[r]) * stack.frequencies[i];
        rope_[r * head_dim_ + 2 * i] = std::cos(angle);
        rope_[r * head_dim_ + 2 * i + 1] = std::sin(angle);
      }
  }

  void work(int rank) {
    read(rank);
    for (int64_t l = 0; l < stack_.depth; l++) {
      const Layer& layer = stack_.layers[l];
      if (layer.cross_norm) cross(layer, l, rank);
      self(layer, l, rank);
      feed_forward(layer, rank);
    }
    if (stack_.norm) write(rank);
  }

 private:
  Share rows(int rank) const { return share(job_.rows, rank, team_.size()); }
  float* row(std::vector<float>& v, int64_t r) const { return v.data() + r * stack_.dim; }

  int64_t oldest(int64_t r) const {
    const int64_t window = stack_.window ? job_.at[r] - stack_.window + 1 : 0;
    const int64_t start = job_.starts ? job_.starts[r] : 0;
    return window > start ? window : start;
  }

  void read(int rank) {
    const Share mine = rows(rank);
    const float* states = static_cast<const float*>(job_.input);
    if (stack_.projection) {
      const Weight& weight = *stack_.projection;
      product(states, job_.rows, weight, job_.x, outputs(weight, rank, team_.size()));
    } else {
      for (int64_t r = mine.begin; r < mine.end; r++) {
        float* x = job_.x + r * stack_.dim;
        if (stack_.embedding) embed(*stack_.embedding, r, x);
        else std::memcpy(x, states + r * stack_.dim, stack_.dim * sizeof(float));
      }
    }
    team_.barrier();
  }

  void embed(const Embedding& table, int64_t r, float* x) const {
    const int64_t width = table.reach - 1 + job_.each, dim = stack_.dim;
    const int64_t* id = static_cast<const int64_t*>(job_.input) + r / job_.each * width
                        + table.reach - 1 + r % job_.each;  // the byte's own; before it, those before
    std::memcpy(x, table.bytes + *id * dim, dim * sizeof(float));
    for (int64_t t = 0; t < table.functions * table.count; t++) {
      uint64_t hash = 0;  // wraps as int64 does
      for (int64_t j = 0; j < table.sizes[t % table.count]; j++)
        hash = hash * uint64_t(table.primes[t / table.count]) + uint64_t(id[-j]);
      int64_t row = int64_t(hash) % table.rows;
      if (row < 0) row += table.rows;
      const float* ngram = table.ngrams + (t * table.rows + row) * dim;
      for (int64_t i = 0; i < dim; i++) x[i] += ngram[i];
    }
  }

  void write(int rank) {
    norms(stack_.norm, rank);
    product_all(normed_.data(), stack_.head, job_.logits, rank);
    if (!job_.entropies) return;
    const Share mine = rows(rank);
    for (int64_t r = mine.begin; r < mine.end; r++)
      job_.entropies[r] = entropy(job_.logits + r * stack_.head.out, stack_.head.out);
  }

  void norms(const float* weight, int rank) {
    const Share mine = rows(rank);
    for (int64_t r = mine.begin; r < mine.end; r++)
      norm(job_.x + r * stack_.dim, weight, stack_.eps, stack_.dim, row(normed_, r));
    team_.barrier();
  }

  void product_all(const float* x, const Weight& weight, float* y, int rank) {
    product(x, job_.rows, weight, y, outputs(weight, rank, team_.size()));
    team_.barrier();
  }

  // x += factor * x + y, where each thread has the outputs that it computed itself
  void add(const float* x, const Weight& weight, float factor, int rank) {
    const Share mine = outputs(weight, rank, team_.size());
    product(x, job_.rows, weight, update_.data(), mine);
    for (int64_t r = 0; r < job_.rows; r++)
      for (int64_t o = mine.begin; o < mine.end; o++) {
        float& old = job_.x[r * stack_.dim + o];
        old = factor * old + update_[r * weight.out + o];
      }
    team_.barrier();
  }

  // x += norm(y), where a layer has its norms on what it gives
  void add_normed(const float* y, const float* weight, int rank) {
    const Share mine = rows(rank);
    for (int64_t r = mine.begin; r < mine.end; r++) {
      float *normed = row(normed_, r), *x = job_.x + r * stack_.dim;
      norm(y + r * stack_.dim, weight, stack_.eps, stack_.dim, normed);
      for (int64_t i = 0; i < stack_.dim; i++) x[i] += normed[i];
    }
    team_.barrier();
  }

  // what a product of a layer reads: the stream, or its norm
  const float* normed(const float* weight, int rank) {
    if (stack_.norms_after) return job_.x;
    norms(weight, rank);
    return normed_.data();
  }

  void self(const Layer& layer, int64_t l, int rank) {
    product_all(normed(layer.attention_norm, rank), layer.qkv, wide_.data(), rank);
    if (layer.qkv_bias || layer.q_norm) adjust(layer, rank);
    if (job_.cache_kind == 0) heads<float>(l, rank); else heads<bfloat16>(l, rank);
    if (stack_.norms_after) {
      product_all(attended_.data(), layer.attention_out, update_.data(), rank);
      add_normed(update_.data(), layer.attention_norm, rank);
    } else {
      add(attended_.data(), layer.attention_out, 1.0f, rank);
    }
  }

  // Biases of queries, keys and values, and norms of queries and keys.
  void adjust(const Layer& layer, int rank) {
    const Share mine = rows(rank);
    const int64_t out = queries_ + 2 * keys_;
    for (int64_t r = mine.begin; r < mine.end; r++) {
      float* qkv = wide_.data() + r * out;
      if (layer.qkv_bias)
        for (int64_t i = 0; i < out; i++) qkv[i] += layer.qkv_bias[i];
      if (!layer.q_norm) continue;
      norm_each(qkv, layer.q_norm, queries_);
      norm_each(qkv + queries_, layer.k_norm, keys_);
    }
    team_.barrier();
  }

  void norm_each(float* x, const float* weight, int64_t features) const {
    const int64_t width = stack_.norm_width ? stack_.norm_width : features;
    for (int64_t i = 0; i < features; i += width) norm(x + i, weight, stack_.eps, width, x + i);
  }

  // A thread has whole heads of keys of one text, so it may read what it has just written.
  template <typename C>
  void heads(int64_t l, int rank) {
    const int64_t heads = stack_.kv_heads, dim = head_dim_, share = stack_.heads / heads;
    int64_t first = 0;
    while (first < job_.rows) {  // rows of one text lie together
      const int64_t text = job_.text[first];
      int64_t last = first;
      while (last < job_.rows && job_.text[last] == text) last++;
      for (int64_t h = 0; h < heads; h++) {
        if ((first * heads + h) % team_.size() != rank) continue;
        const int64_t capacity = job_.capacity[text], size = heads * capacity * dim;
        C* keys = static_cast<C*>(job_.caches[text]) + 2 * (job_.first_layer + l) * size
                  + h * capacity * dim;
        C* values = keys + size;
        for (int64_t r = first; r < last; r++) {
          const int64_t slot = job_.at[r] % capacity;
          float* q = wide_.data() + r * (queries_ + 2 * keys_) + h * share * dim;
          float* k = wide_.data() + r * (queries_ + 2 * keys_) + queries_ + h * dim;
          for (int64_t s = 0; s < share; s++) rotate(q + s * dim, r, 1.0f / std::sqrt(float(dim)));
          rotate(k, r, 1.0f);
          for (int64_t i = 0; i < dim; i++) {
            store(keys + slot * dim + i, k[i]);
            store(values + slot * dim + i, k[keys_ + i]);
          }
        }
        for (int64_t r = first; r < last; r++)
          for (int64_t s = h * share; s < (h + 1) * share; s++)
            attend(wide_.data() + r * (queries_ + 2 * keys_) + s * dim, keys, values, dim, capacity,
                   oldest(r), job_.at[r], scores_[rank].data(), order_[rank].data(),
                   attended_.data() + r * queries_ + s * dim);
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
    product_all(normed(layer.ff_norm, rank), layer.gate_up, wide_.data(), rank);
    const int64_t ff = layer.down.in;
    const Share mine = share(ff, rank, team_.size(), LANES);
    for (int64_t r = 0; r < job_.rows; r++) {
      float* gate = wide_.data() + r * 2 * ff;
      int64_t i = mine.begin;
      for (; i + LANES <= mine.end; i += LANES) {
        const Floats x = load(gate + i), y = x / (1.0f + exp(-x)) * load(gate + ff + i);
        std::memcpy(&update_[r * ff + i], &y, sizeof(y));
      }
      for (; i < mine.end; i++)
        update_[r * ff + i] = gate[i] / (1.0f + std::exp(-gate[i])) * gate[ff + i];
    }
    team_.barrier();
    if (stack_.norms_after) {
      product_all(update_.data(), layer.down, wide_.data(), rank);
      add_normed(wide_.data(), layer.ff_norm, rank);
    } else {
      product_down(layer.down, rank);
    }
  }

  void product_down(const Weight& weight, int rank) {
    const Share mine = outputs(weight, rank, team_.size());
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
        const float* k = job_.seen + 2 * l * job_.seen_stride + patch;
        const float* v = k + job_.seen_stride;
        const float* q = wide_.data() + r * stack_.dim + h * dim;
        mix(q, k, v, dim, stack_.dim, slices, scale, row(attended_, r) + h * dim);
      }
    team_.barrier();
    add(attended_.data(), layer.cross_out, 2.0f, rank);
  }

  const Stack& stack_;
  const Job& job_;
  Team& team_;
  const int64_t head_dim_, queries_, keys_;  // features of a head, of all of queries, of keys
  std::vector<float> normed_, wide_, attended_, update_, rope_;
  std::vector<std::vector<float>> scores_, order_;
};

}  // namespace blt
