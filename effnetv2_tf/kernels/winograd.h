// Winograd's minimal filtering (Lavin and Gray, arXiv 1509.09308): pixels of a 3x3 convolution from
// fewer multiplications.
//
// With stride 1 it is F(4x4, 3x3), 36 for each pair of channels and 4x4 pixels in place of 144. Its
// interpolation points are 0, +-sqrt(1/2), +-sqrt(2) and infinity, with which sums are rounded half as
// much as with the usual 0, +-1, +-2.
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

constexpr int kTile = 4;     // sides of a tile of the output
constexpr int kKernel = 3;   // and of the kernel
constexpr int kFactors = 6;  // that stand for a kernel's side at the points
constexpr int kPaired = 4;   // of a side's points are, two by two, each other's negative: the first

// A tile of the output is o^T ((k kernel k^T) * (i input i^T)) o, where the two factors are multiplied
// point by point and i, k and o have a row for each point. Those of a pair differ in the sign of some
// of their elements.
template <int points, int size>
using Matrix = const float (&)[points][size];

// The row of k for a point: with stride 2 all odd pixels have the last one.
constexpr int FactorOf(int point) { return std::min(point, kFactors - 1); }

constexpr float kRoot = 1.41421356f, kHalfRoot = 0.707106781f;

// With stride 1, where the image's gradient is the same of the kernel turned round.
struct Stride1 {
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
  static constexpr float kOfOutput[6][kTile] = {
      {1, kHalfRoot, 0.5f, kHalfRoot / 2},
      {1, -kHalfRoot, 0.5f, -kHalfRoot / 2},
      {1, kRoot, 2, 2 * kRoot},
      {1, -kRoot, 2, -2 * kRoot},
      {1, 0, 0, 0},
      {0, 0, 0, 1},
  };
  using Turned = Stride1;
};

// The image's gradient with stride 2, of the kernel turned round: twice as many pixels a side, where
// the padded image's even ones depend on the outer elements and its odd ones on the one in the middle.
struct Stride2Turned {
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
  static constexpr float kOfOutput[9][kTile] = {
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
template <class Values, int points, int size, class Get, class Put>
EFFNETV2_INLINE void ToPoints(Matrix<points, size> m, Get get, Put put) {
  Values row[size];  // of m x
  const auto finish = [&](int i) __attribute__((always_inline)) {
    const auto get_row = [&](int k) __attribute__((always_inline)) { return row[k]; };
#pragma GCC unroll 16
    for (int j = 0; j < kPaired; j += 2) {
      Values even{}, odd{};
      AddPair<Values>(m, j, get_row, even, odd);
      put(i, j, even + odd);
      put(i, j + 1, even - odd);
    }
#pragma GCC unroll 16
    for (int j = kPaired; j < points; ++j) put(i, j, Sum<Values>(m, j, get_row));
  };
#pragma GCC unroll 16
  for (int i = kPaired; i < points; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) row[j] = Sum<Values>(m, i, [&](int k) { return get(k, j); });
    finish(i);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPaired; i += 2) {
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

// put(i, j, (m^T x m)[i][j]) for all i and j, of get(i, j), x[i][j] at the points i and j.
template <class Values, int points, int size, class Get, class Put>
EFFNETV2_INLINE void FromPoints(Matrix<points, size> m, Get get, Put put) {
  Values sums[size][size] = {};
  // Adds row `i` of x m, or the sum or difference of two rows, which is for every other of the sums.
  const auto add = [&](int i, const Values(&row)[size], bool takes_even,
                       bool takes_odd) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int k = 0; k < size; ++k) {
      const bool is_even = i >= kPaired || m[i][k] == m[i + 1][k];
      if (!(is_even ? takes_even : takes_odd)) continue;
#pragma GCC unroll 16
      for (int j = 0; j < size; ++j) AddProduct(m[i][k], row[j], sums[k][j]);
    }
  };
  const auto get_row = [&](int i, Values(&row)[size]) __attribute__((always_inline)) {  // of x m
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) row[j] = Values{};
#pragma GCC unroll 16
    for (int k = kPaired; k < points; ++k) {
      const Values single = get(i, k);
#pragma GCC unroll 16
      for (int j = 0; j < size; ++j) AddProduct(m[k][j], single, row[j]);
    }
#pragma GCC unroll 16
    for (int k = 0; k < kPaired; k += 2) {
      const Values a = get(i, k), b = get(i, k + 1), even = a + b, odd = a - b;
#pragma GCC unroll 16
      for (int j = 0; j < size; ++j) {
        AddProduct(m[k][j], m[k][j] == m[k + 1][j] ? even : odd, row[j]);
      }
    }
  };
#pragma GCC unroll 16
  for (int i = kPaired; i < points; ++i) {
    Values row[size];
    get_row(i, row);
    add(i, row, true, true);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPaired; i += 2) {
    Values a[size], b[size], even[size], odd[size];
    get_row(i, a);
    get_row(i + 1, b);
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) {
      even[j] = a[j] + b[j];
      odd[j] = a[j] - b[j];
    }
    add(i, even, true, false);
    add(i, odd, false, true);
  }
#pragma GCC unroll 16
  for (int i = 0; i < size; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < size; ++j) put(i, j, sums[i][j]);
  }
}

}  // namespace winograd
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_WINOGRAD_H_
