// Between bytes and patches: pooling complete patches, and the keys and values bytes see of them.

#pragma once

#include <vector>

#include "attention.h"
#include "products.h"

namespace blt {

// What Python hands over; keep in step with __init__.py.

struct Pooling {
  const float *query_norm, *key_value_norm;
  Weight projection, query, key_value, out;
  int64_t dim, heads, slices;
  float eps;
};

struct Crossing {
  const float* norm;
  Weight key_value;
};

struct Crossings {
  const Crossing* layers;
  Weight projection;
  int64_t count, dim, slices;
  float eps;
};

inline void norms(const float* x, const float* weight, float eps, int64_t dim, Share mine,
                  float* y) {
  for (int64_t r = mine.begin; r < mine.end; r++) norm(x + r * dim, weight, eps, dim, y + r * dim);
}

// y [patches, slices, dim] from x [rows, dim], the bytes of all patches end to end
class Pool {
 public:
  Pool(const Pooling& pooling, const float* x, const int64_t* ends, int64_t patches, float* y,
       Team& team)
      : p_(pooling), x_(x), ends_(ends), patches_(patches), rows_(ends[patches - 1]), y_(y),
        team_(team) {
    const int64_t wide = patches * p_.slices * p_.dim;
    pooled_.resize(patches * p_.dim);
    normed_.resize(rows_ * p_.dim);
    keys_values_.resize(rows_ * 2 * p_.dim);
    for (auto* v : {&queries_, &normed_queries_, &attended_}) v->resize(wide);
  }

  void work(int rank) {
    const int size = team_.size();
    const int64_t queries = patches_ * p_.slices;
    const Share mine = share(patches_, rank, size);
    for (int64_t p = mine.begin; p < mine.end; p++) maximum(p);
    norms(x_, p_.key_value_norm, p_.eps, p_.dim, share(rows_, rank, size), normed_.data());
    team_.barrier();
    multiply(pooled_, patches_, p_.projection, y_, rank);
    multiply(normed_, rows_, p_.key_value, keys_values_.data(), rank);
    team_.barrier();
    norms(y_, p_.query_norm, p_.eps, p_.dim, share(queries, rank, size), normed_queries_.data());
    team_.barrier();
    multiply(normed_queries_, queries, p_.query, queries_.data(), rank);
    team_.barrier();
    for (int64_t p = mine.begin; p < mine.end; p++) attend(p);
    team_.barrier();
    multiply(attended_, queries, p_.out, queries_.data(), rank);
    const Share outs = outputs(p_.out, rank, size);
    for (int64_t q = 0; q < queries; q++)
      for (int64_t o = q * p_.dim + outs.begin; o < q * p_.dim + outs.end; o++)
        y_[o] = 2.0f * y_[o] + queries_[o];
  }

 private:
  int64_t begin(int64_t p) const { return p ? ends_[p - 1] : 0; }

  void multiply(const std::vector<float>& x, int64_t rows, const Weight& weight, float* y,
                int rank) const {
    product(x.data(), rows, weight, y, outputs(weight, rank, team_.size()));
  }

  void maximum(int64_t p) {
    float* y = pooled_.data() + p * p_.dim;
    std::memcpy(y, x_ + begin(p) * p_.dim, p_.dim * sizeof(float));
    for (int64_t r = begin(p) + 1; r < ends_[p]; r++)
      for (int64_t i = 0; i < p_.dim; i++)
        y[i] = x_[r * p_.dim + i] > y[i] ? x_[r * p_.dim + i] : y[i];
  }

  void attend(int64_t p) {
    const int64_t dim = p_.dim / p_.heads;
    for (int64_t s = p * p_.slices; s < (p + 1) * p_.slices; s++)
      for (int64_t h = 0; h < p_.heads; h++) {
        const float* k = keys_values_.data() + begin(p) * 2 * p_.dim + h * dim;
        mix(queries_.data() + s * p_.dim + h * dim, k, k + p_.dim, dim, 2 * p_.dim,
            ends_[p] - begin(p), 1.0f / std::sqrt(float(dim)),
            attended_.data() + s * p_.dim + h * dim);
      }
  }

  const Pooling& p_;
  const float* x_;
  const int64_t* ends_;
  const int64_t patches_, rows_;
  float* y_;
  Team& team_;
  std::vector<float> pooled_, normed_, keys_values_, queries_, normed_queries_, attended_;
};

// seen [crossings, k and v, patches, slices, dim] from x [patches, in]; k and v ``stride`` apart
class See {
 public:
  See(const Crossings& crossings, const float* x, int64_t patches, float* seen, int64_t stride,
      Team& team)
      : c_(crossings), x_(x), patches_(patches), seen_(seen), stride_(stride), team_(team),
        rows_(patches * crossings.slices), states_(rows_ * c_.dim),
        normed_(c_.count * rows_ * c_.dim), both_(c_.count * rows_ * 2 * c_.dim) {}

  void work(int rank) {
    const Weight& projection = c_.projection;
    const Share mine = outputs(projection, rank, team_.size());
    product(x_, patches_, projection, states_.data(), mine);
    team_.barrier();
    for (int64_t l = 0; l < c_.count; l++)
      norms(states_.data(), c_.layers[l].norm, c_.eps, c_.dim, share(rows_, rank, team_.size()),
            normed_.data() + l * rows_ * c_.dim);
    team_.barrier();
    for (int64_t l = 0; l < c_.count; l++) keys_values(l, rank);
  }

 private:
  void keys_values(int64_t l, int rank) {
    const Weight& weight = c_.layers[l].key_value;
    const Share mine = outputs(weight, rank, team_.size());
    float* both = both_.data() + l * rows_ * 2 * c_.dim;
    product(normed_.data() + l * rows_ * c_.dim, rows_, weight, both, mine);
    for (int64_t r = 0; r < rows_; r++)
      for (int64_t o = mine.begin; o < mine.end; o++) {
        const int64_t which = o / c_.dim;
        seen_[(2 * l + which) * stride_ + r * c_.dim + o % c_.dim] = both[r * 2 * c_.dim + o];
      }
  }

  const Crossings& c_;
  const float* x_;
  const int64_t patches_;
  float* seen_;
  const int64_t stride_;
  Team& team_;
  const int64_t rows_;
  std::vector<float> states_, normed_, both_;
};

}  // namespace blt
