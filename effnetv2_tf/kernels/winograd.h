// Winograd's minimal filtering (Lavin and Gray, arXiv 1509.09308): pixels of a 3x3 convolution from
// fewer multiplications.
//
// With stride 1 it is F(4x4, 3x3), 36 for each pair of channels and 4x4 pixels in place of 144. Its
// interpolation points are 0, +-sqrt(1/2), +-sqrt(2) and infinity, with which sums are rounded half as
// much as with the usual 0, +-1, +-2. For networks that no longer learn there is F(6x6, 3x3), 64 in
// place of 324, with the points 0, +-1/2, +-1, +-2 and infinity; its sums are rounded four times as
// much.
//
// With stride 2 a side's even pixels are convolved with the kernel's two outer elements, F(4, 2) with
// the points +-1/2, +-3/2 and infinity, and its odd pixels multiplied by the one in the middle: 5 + 4
// products a side, 81 in place of 144, whose sums are rounded no more than the definition's.

#ifndef EFFNETV2_TF_KERNELS_WINOGRAD_H_
#define EFFNETV2_TF_KERNELS_WINOGRAD_H_

#include <algorithm>
#include <type_traits>

#include "products.h"

namespace effnetv2_tf {
namespace winograd {

constexpr int kKernel = 3;  // a side

// A tile of the output is o^T ((k kernel k^T) * (i input i^T)) o, where the two factors are multiplied
// point by point and i, k and o have a row for each point, k `kFactors` of them. Of the points, the
// first `kPaired` are, two by two, each other's negative: their rows differ in the sign of some
// elements.
template <int points, int size>
using Matrix = const float (&)[points][size];

constexpr float kRoot = 1.41421356f, kHalfRoot = 0.707106781f;

// With stride 1, where the image's gradient is the same of the kernel turned round.
struct Stride1 {
  static constexpr int kPaired = 4, kFactors = 6;
  static constexpr float kOfInput[6][6] = {
      {0, -kRoot, -2, kHalfRoot, 1, 0},
      {0, kRoot, -2, -kHalfRoot, 1, 0},
      {0, -kHalfRoot, -0.5f, kRoot, 1, 0},
      {0, kHalfRoot, -0.5f, -kRoot, 1, 0},
      {1, 0, -2.5f, 0, 1, 0},
      {0, 1, 0, -2.5f, 0, 1},
  };
  static constexpr float kOfKernel[kFactors][kKernel] = {
      {-2.0f / 3, -kRoot / 3, -1.0f / 3},
      {-2.0f / 3, kRoot / 3, -1.0f / 3},
      {1.0f / 6, kRoot / 6, 1.0f / 3},
      {1.0f / 6, -kRoot / 6, 1.0f / 3},
      {1, 0, 0},
      {0, 0, 1},
  };
  static constexpr float kOfOutput[6][4] = {
      {1, kHalfRoot, 0.5f, kHalfRoot / 2},
      {1, -kHalfRoot, 0.5f, -kHalfRoot / 2},
      {1, kRoot, 2, 2 * kRoot},
      {1, -kRoot, 2, -2 * kRoot},
      {1, 0, 0, 0},
      {0, 0, 0, 1},
  };
  using Turned = Stride1;
};

// With stride 1 in larger tiles.
struct Stride1Wide {
  static constexpr int kPaired = 6, kFactors = 8;
  static constexpr float kOfInput[8][8] = {
      {0, 1, 1, -4.25f, -4.25f, 1, 1, 0},
      {0, -1, 1, 4.25f, -4.25f, -1, 1, 0},
      {0, 2, 4, -2.5f, -5, 0.5f, 1, 0},
      {0, -2, 4, 2.5f, -5, -0.5f, 1, 0},
      {0, 0.5f, 0.25f, -2.5f, -1.25f, 2, 1, 0},
      {0, -0.5f, 0.25f, 2.5f, -1.25f, -2, 1, 0},
      {1, 0, -5.25f, 0, 5.25f, 0, -1, 0},
      {0, -1, 0, 5.25f, 0, -5.25f, 0, 1},
  };
  static constexpr float kOfKernel[kFactors][kKernel] = {
      {-2.0f / 9, -2.0f / 9, -2.0f / 9},
      {-2.0f / 9, 2.0f / 9, -2.0f / 9},
      {32.0f / 45, 16.0f / 45, 8.0f / 45},
      {32.0f / 45, -16.0f / 45, 8.0f / 45},
      {1.0f / 90, 2.0f / 90, 4.0f / 90},
      {1.0f / 90, -2.0f / 90, 4.0f / 90},
      {1, 0, 0},
      {0, 0, 1},
  };
  static constexpr float kOfOutput[8][6] = {
      {1, 1, 1, 1, 1, 1},
      {1, -1, 1, -1, 1, -1},
      {1, 0.5f, 0.25f, 0.125f, 0.0625f, 0.03125f},
      {1, -0.5f, 0.25f, -0.125f, 0.0625f, -0.03125f},
      {1, 2, 4, 8, 16, 32},
      {1, -2, 4, -8, 16, -32},
      {1, 0, 0, 0, 0, 0},
      {0, 0, 0, 0, 0, 1},
  };
};

// The image's gradient with stride 2, of the kernel turned round: twice as many pixels a side, where
// the padded image's even ones depend on the outer elements and its odd ones on the one in the middle.
struct Stride2Turned {
  static constexpr int kPaired = 4, kFactors = 6;
  static constexpr float kOfInput[9][5] = {
      {-1.125f, -2.25f, 0.5f, 1, 0},
      {1.125f, -2.25f, -0.5f, 1, 0},
      {-0.375f, -0.25f, 1.5f, 1, 0},
      {0.375f, -0.25f, -1.5f, 1, 0},
      {0.5625f, 0, -2.5f, 0, 1},
      {0, 1, 0, 0, 0},
      {0, 0, 1, 0, 0},
      {0, 0, 0, 1, 0},
      {0, 0, 0, 0, 1},
  };
  static constexpr float kOfOutput[9][8] = {
      {1, 0, 0.5f, 0, 0.25f, 0, 0.125f, 0},
      {1, 0, -0.5f, 0, 0.25f, 0, -0.125f, 0},
      {1, 0, 1.5f, 0, 2.25f, 0, 3.375f, 0},
      {1, 0, -1.5f, 0, 2.25f, 0, -3.375f, 0},
      {0, 0, 0, 0, 0, 0, 1, 0},
      {0, 1, 0, 0, 0, 0, 0, 0},
      {0, 0, 0, 1, 0, 0, 0, 0},
      {0, 0, 0, 0, 0, 1, 0, 0},
      {0, 0, 0, 0, 0, 0, 0, 1},
  };
};

struct Stride2 {
  static constexpr int kPaired = 4, kFactors = 6;
  static constexpr float kOfInput[9][9] = {
      {-1.125f, 0, -2.25f, 0, 0.5f, 0, 1, 0, 0},
      {1.125f, 0, -2.25f, 0, -0.5f, 0, 1, 0, 0},
      {-0.375f, 0, -0.25f, 0, 1.5f, 0, 1, 0, 0},
      {0.375f, 0, -0.25f, 0, -1.5f, 0, 1, 0, 0},
      {0.5625f, 0, 0, 0, -2.5f, 0, 0, 0, 1},
      {0, 1, 0, 0, 0, 0, 0, 0, 0},
      {0, 0, 0, 1, 0, 0, 0, 0, 0},
      {0, 0, 0, 0, 0, 1, 0, 0, 0},
      {0, 0, 0, 0, 0, 0, 0, 1, 0},
  };
  static constexpr float kOfKernel[kFactors][kKernel] = {
      {-0.5f, 0, -0.25f},
      {0.5f, 0, -0.25f},
      {1.0f / 6, 0, 0.25f},
      {-1.0f / 6, 0, 0.25f},
      {0, 0, 1},
      {0, 1, 0},
  };
  static constexpr float kOfOutput[9][4] = {
      {1, 0.5f, 0.25f, 0.125f},
      {1, -0.5f, 0.25f, -0.125f},
      {1, 1.5f, 2.25f, 3.375f},
      {1, -1.5f, 2.25f, -3.375f},
      {0, 0, 0, 1},
      {1, 0, 0, 0},
      {0, 1, 0, 0},
      {0, 0, 1, 0},
      {0, 0, 0, 1},
  };
  using Turned = Stride2Turned;
};

// Points of a side, and pixels of a side of the input's and output's tiles.
template <class Algorithm>
constexpr int kPointsOf = std::extent_v<decltype(Algorithm::kOfInput), 0>;
template <class Algorithm>
constexpr int kInputSideOf = std::extent_v<decltype(Algorithm::kOfInput), 1>;
template <class Algorithm>
constexpr int kOutputSideOf = std::extent_v<decltype(Algorithm::kOfOutput), 1>;

// Which of the kernel's factors, kFactors x kFactors of them, stands for it at point (i, j): with
// stride 2 the last row of k is for all odd pixels.
template <class Algorithm>
constexpr int FactorOf(int i, int j) {
  constexpr int side = Algorithm::kFactors;
  return std::min(i, side - 1) * side + std::min(j, side - 1);
}

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
template <class Values, int points, int size, class Get>
EFFNETV2_INLINE void AddPair(Matrix<points, size> m, int point, Get get, Values& even,
                             Values& odd) {
#pragma GCC unroll 16
  for (int k = 0; k < size; ++k) {
    AddProduct(m[point][k], get(k), m[point][k] == m[point + 1][k] ? even : odd);
  }
}

template <class Values, int points, int size, class Get>
EFFNETV2_INLINE Values Sum(Matrix<points, size> m, int point, Get get) {
  Values sum{};
#pragma GCC unroll 16
  for (int k = 0; k < size; ++k) AddProduct(m[point][k], get(k), sum);
  return sum;
}

// put(i, j, (m x m^T)[i][j]) for all points i and j, of get(i, j), x[i][j].
template <class Values, int paired, int points, int size, class Get, class Put>
EFFNETV2_INLINE void ToPoints(Matrix<points, size> m, Get get, Put put) {
  Values row[size];  // of m x
  const auto finish = [&](int i) __attribute__((always_inline)) {
    const auto get_row = [&](int k) __attribute__((always_inline)) { return row[k]; };
#pragma GCC unroll 16
    for (int j = 0; j < paired; j += 2) {
      Values even{}, odd{};
      AddPair<Values>(m, j, get_row, even, odd);
      put(i, j, even + odd);
      put(i, j + 1, even - odd);
    }
#pragma GCC unroll 16
    for (int j = paired; j < points; ++j) put(i, j, Sum<Values>(m, j, get_row));
  };
#pragma GCC unroll 16
  for (int i = paired; i < points; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) row[j] = Sum<Values>(m, i, [&](int k) { return get(k, j); });
    finish(i);
  }
#pragma GCC unroll 16
  for (int i = 0; i < paired; i += 2) {
    Values even[size] = {}, odd[size] = {};
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) {
      AddPair<Values>(m, i, [&](int k) { return get(k, j); }, even[j], odd[j]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) row[j] = even[j] + odd[j];
    finish(i);
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) row[j] = even[j] - odd[j];
    finish(i + 1);
  }
}

// sums[k] = the sum of m[point][k] * get(point) over all points.
template <int paired, class Values, int points, int size, class Get>
EFFNETV2_INLINE void SumOverPoints(Matrix<points, size> m, Get get, Values (&sums)[size]) {
#pragma GCC unroll 16
  for (int k = 0; k < size; ++k) sums[k] = Values{};
#pragma GCC unroll 16
  for (int point = paired; point < points; ++point) {
    const Values single = get(point);
#pragma GCC unroll 16
    for (int k = 0; k < size; ++k) AddProduct(m[point][k], single, sums[k]);
  }
#pragma GCC unroll 16
  for (int point = 0; point < paired; point += 2) {
    const Values a = get(point), b = get(point + 1), even = a + b, odd = a - b;
#pragma GCC unroll 16
    for (int k = 0; k < size; ++k) {
      AddProduct(m[point][k], m[point][k] == m[point + 1][k] ? even : odd, sums[k]);
    }
  }
}

// put(i, j, (m^T x m)[i][j]) for all i and j, of get(i, j), x[i][j] at the points i and j.
template <class Values, int paired, int points, int size, class Get, class Put>
EFFNETV2_INLINE void FromPoints(Matrix<points, size> m, Get get, Put put) {
  Values rows[points][size];  // of x m
#pragma GCC unroll 16
  for (int i = 0; i < points; ++i) {
    const auto in_row = [&](int j) __attribute__((always_inline)) { return get(i, j); };
    SumOverPoints<paired>(m, in_row, rows[i]);
  }
#pragma GCC unroll 16
  for (int j = 0; j < size; ++j) {
    const auto in_column = [&](int i) __attribute__((always_inline)) { return rows[i][j]; };
    Values column[size];
    SumOverPoints<paired>(m, in_column, column);
#pragma GCC unroll 16
    for (int i = 0; i < size; ++i) put(i, j, column[i]);
  }
}

}  // namespace winograd
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_WINOGRAD_H_
