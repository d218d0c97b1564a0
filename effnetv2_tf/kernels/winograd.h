// Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): 4x4 pixels of a 3x3
// convolution from 36 multiplications for each pair of channels in place of 144. Its interpolation
// points are 0, +-sqrt(1/2), +-sqrt(2) and infinity, with which sums are rounded half as much as
// with the usual 0, +-1, +-2.

#ifndef EFFNETV2_TF_KERNELS_WINOGRAD_H_
#define EFFNETV2_TF_KERNELS_WINOGRAD_H_

#include "products.h"

namespace effnetv2_tf {
namespace winograd {

constexpr int kTile = 4;                  // sides of a tile of the output,
constexpr int kKernel = 3;                // of the kernel,
constexpr int kSide = 6;                  // and of the input that the tile depends on
constexpr int kPoints = kSide * kSide;    // products for each tile

constexpr float kRoot = 1.41421356f, kHalfRoot = 0.707106781f;

// What stands for a tile, a kernel or the tile of the input at the points: m x m^T with one of these
// as m, a row for each point. A tile of the output is m^T (kernel * input) m, the last two
// multiplied point by point. The second and third row, and the fourth and fifth, are of points that
// differ in their sign, hence so do every other of their elements.
template <int size>
using Matrix = const float (&)[kSide][size];

constexpr float kOfInput[kSide][kSide] = {
    {1, 0, -2.5f, 0, 1, 0},
    {0, -kRoot, -2, kHalfRoot, 1, 0},
    {0, kRoot, -2, -kHalfRoot, 1, 0},
    {0, -kHalfRoot, -0.5f, kRoot, 1, 0},
    {0, kHalfRoot, -0.5f, -kRoot, 1, 0},
    {0, 1, 0, -2.5f, 0, 1},
};
constexpr float kOfKernel[kSide][kKernel] = {
    {1, 0, 0},
    {-2.0f / 3, -kRoot / 3, -1.0f / 3},
    {-2.0f / 3, kRoot / 3, -1.0f / 3},
    {1.0f / 6, kRoot / 6, 1.0f / 3},
    {1.0f / 6, -kRoot / 6, 1.0f / 3},
    {0, 0, 1},
};
constexpr float kOfOutput[kSide][kTile] = {
    {1, 0, 0, 0},
    {1, kHalfRoot, 0.5f, kHalfRoot / 2},
    {1, -kHalfRoot, 0.5f, -kHalfRoot / 2},
    {1, kRoot, 2, 2 * kRoot},
    {1, -kRoot, 2, -2 * kRoot},
    {0, 0, 0, 1},
};

// The loops are unrolled, for a compiler to know the factors and leave out what is multiplied by 0
// or 1, and to have all values in registers.
#define EFFNETV2_INLINE inline __attribute__((always_inline))

// sum += factor * x
template <class Values>
EFFNETV2_INLINE void AddProduct(float factor, Values x, Values& sum) {
  if (factor == 0) return;
  if (factor == 1) {
    sum += x;
  } else if (factor == -1) {
    sum -= x;
  } else {
    sum += factor * x;
  }
}

// The sum of m[point][k] * get(k) over all k, apart where it is the next point's and where it is the
// next point's with the other sign.
template <class Values, int size, class Get>
EFFNETV2_INLINE void AddPair(Matrix<size> m, int point, Get get, Values& even, Values& odd) {
#pragma GCC unroll 8
  for (int k = 0; k < size; ++k) {
    AddProduct(m[point][k], get(k), m[point][k] == m[point + 1][k] ? even : odd);
  }
}

template <class Values, int size, class Get>
EFFNETV2_INLINE Values Sum(Matrix<size> m, int point, Get get) {
  Values sum{};
#pragma GCC unroll 8
  for (int k = 0; k < size; ++k) AddProduct(m[point][k], get(k), sum);
  return sum;
}

// put(i, j, (m x m^T)[i][j]) for all points i and j, of get(i, j), x[i][j].
template <class Values, int size, class Get, class Put>
EFFNETV2_INLINE void ToPoints(Matrix<size> m, Get get, Put put) {
  Values row[size];  // of m x
  const auto finish = [&](int i) __attribute__((always_inline)) {
    const auto get_row = [&](int k) __attribute__((always_inline)) { return row[k]; };
    put(i, 0, Sum<Values>(m, 0, get_row));
#pragma GCC unroll 8
    for (int j = 1; j < kSide - 1; j += 2) {
      Values even{}, odd{};
      AddPair<Values>(m, j, get_row, even, odd);
      put(i, j, even + odd);
      put(i, j + 1, even - odd);
    }
    put(i, kSide - 1, Sum<Values>(m, kSide - 1, get_row));
  };
#pragma GCC unroll 8
  for (int i = 0; i < kSide; i += kSide - 1) {
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) row[j] = Sum<Values>(m, i, [&](int k) { return get(k, j); });
    finish(i);
  }
#pragma GCC unroll 8
  for (int i = 1; i < kSide - 1; i += 2) {
    Values even[size] = {}, odd[size] = {};
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) {
      AddPair<Values>(m, i, [&](int k) { return get(k, j); }, even[j], odd[j]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) row[j] = even[j] + odd[j];
    finish(i);
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) row[j] = even[j] - odd[j];
    finish(i + 1);
  }
}

// put(i, j, (m^T x m)[i][j]) for all i and j, of get(i, j), x[i][j] at the points i and j.
template <class Values, int size, class Get, class Put>
EFFNETV2_INLINE void FromPoints(Matrix<size> m, Get get, Put put) {
  Values sums[size][size] = {};
  // Adds row `i` of x m, or the sum or difference of two rows, which is for every other of the sums.
  const auto add = [&](int i, const Values(&row)[size], bool takes_even,
                       bool takes_odd) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int k = 0; k < size; ++k) {
      const bool is_even = i == 0 || i == kSide - 1 || m[i][k] == m[i + 1][k];
      if (!(is_even ? takes_even : takes_odd)) continue;
#pragma GCC unroll 8
      for (int j = 0; j < size; ++j) AddProduct(m[i][k], row[j], sums[k][j]);
    }
  };
  const auto get_row = [&](int i, Values(&row)[size]) __attribute__((always_inline)) {  // of x m
    const Values first = get(i, 0), last = get(i, kSide - 1);
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) {
      row[j] = Values{};
      AddProduct(m[0][j], first, row[j]);
      AddProduct(m[kSide - 1][j], last, row[j]);
    }
#pragma GCC unroll 8
    for (int k = 1; k < kSide - 1; k += 2) {
      const Values a = get(i, k), b = get(i, k + 1), even = a + b, odd = a - b;
#pragma GCC unroll 8
      for (int j = 0; j < size; ++j) {
        AddProduct(m[k][j], m[k][j] == m[k + 1][j] ? even : odd, row[j]);
      }
    }
  };
#pragma GCC unroll 8
  for (int i = 0; i < kSide; i += kSide - 1) {
    Values row[size];
    get_row(i, row);
    add(i, row, true, true);
  }
#pragma GCC unroll 8
  for (int i = 1; i < kSide - 1; i += 2) {
    Values a[size], b[size], even[size], odd[size];
    get_row(i, a);
    get_row(i + 1, b);
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) {
      even[j] = a[j] + b[j];
      odd[j] = a[j] - b[j];
    }
    add(i, even, true, false);
    add(i, odd, false, true);
  }
#pragma GCC unroll 8
  for (int i = 0; i < size; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) put(i, j, sums[i][j]);
  }
}

}  // namespace winograd
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_WINOGRAD_H_
