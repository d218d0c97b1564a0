// Products of matrices that stay in a cache, whose sums stay in registers.

#ifndef EFFNETV2_TF_KERNELS_PRODUCTS_H_
#define EFFNETV2_TF_KERNELS_PRODUCTS_H_

#include "vectors.h"

namespace effnetv2_tf {

// Rows of a product at a time: with `kWidest` vectors of each as many sums as there are registers,
// less those for the factors.
constexpr int64_t kRows = kWidth == 16 ? 8 : 4, kWidest = 3;

inline int64_t RoundUp(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

// Neighbouring columns of a matrix, in up to kWidest vectors, the last one filled up with columns
// that are nobody's.
struct Panel {
  // Calls work(column, part) for each vector, where `part` loads and stores as much of one as there
  // are columns.
  template <class Work>
  void ForEachVector(Work work) const {
    for (int64_t c = 0; c < columns; c += kWidth) {
      if (columns - c >= kWidth) {
        work(column + c, WholeVector{});
      } else {
        work(column + c, PartOfVector{columns - c});
      }
    }
  }

  int64_t column;  // the first
  int64_t columns, vectors;
};

// A matrix's columns in panels, one after the other.
class Panels {
 public:
  explicit Panels(int64_t columns)
      : columns(columns),
        vectors_((columns + kWidth - 1) / kWidth),
        widest_(vectors_ % kWidest == 0 ? kWidest : kWidest - 1) {}

  int64_t count() const { return (vectors_ + widest_ - 1) / widest_; }

  Panel operator[](int64_t i) const {
    const int64_t first = i * widest_, column = first * kWidth;
    const int64_t vectors = std::min(widest_, vectors_ - first);
    return {column, std::min(vectors * kWidth, columns - column), vectors};
  }

  // Elements of a row, all panels together.
  int64_t width() const { return vectors_ * kWidth; }

  // Where the vector with a column of a row lies, in a matrix of `rows` rows.
  int64_t Find(int64_t row, int64_t column, int64_t rows) const {
    const Panel panel = (*this)[column / kWidth / widest_];
    return panel.column * rows + row * panel.vectors * kWidth + column - panel.column;
  }

  template <class Work>
  void ForEach(Work work) const {
    for (int64_t i = 0; i < count(); ++i) work((*this)[i]);
  }

  // See Panel.
  template <class Work>
  void ForEachVector(Work work) const {
    ForEach([&](const Panel& panel) { panel.ForEachVector(work); });
  }

  const int64_t columns;

 private:
  const int64_t vectors_, widest_;
};

// The left matrix of a product, `inner` columns of it.
struct Left {
  const float* values;
  int64_t row_step, column_step, inner;
};

// kRows rows of left * panel, added to what is in `to`, whose rows lie `step` elements apart, or in
// place of it. Unrolled, or the sums would not be in registers; added at the end, for sums of sums
// are rounded less than long ones.
template <int vectors, bool adds>
void Multiply(const Left& left, const float* panel, float* to, int64_t step) {
  Vector sums[kRows][vectors] = {};
  const auto for_each_sum = [&](auto work) {
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
      for (int64_t v = 0; v < vectors; ++v) work(sums[r][v], to + r * step + v * kWidth);
    }
  };
  for (int64_t i = 0; i < left.inner; ++i) {
    Vector row[vectors];
#pragma GCC unroll 3
    for (int64_t v = 0; v < vectors; ++v) row[v] = Load<Vector>(panel + (i * vectors + v) * kWidth);
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) {
      const float factor = left.values[r * left.row_step + i * left.column_step];
#pragma GCC unroll 3
      for (int64_t v = 0; v < vectors; ++v) sums[r][v] += factor * row[v];
    }
  }
  for_each_sum([](Vector sum, float* at) { Store(adds ? Load<Vector>(at) + sum : sum, at); });
}

template <bool adds>
void Multiply(const Left& left, const float* panel, int64_t vectors, float* to, int64_t step) {
  const auto multiply =
      vectors == 3 ? Multiply<3, adds> : vectors == 2 ? Multiply<2, adds> : Multiply<1, adds>;
  multiply(left, panel, to, step);
}

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_PRODUCTS_H_
