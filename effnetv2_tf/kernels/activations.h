// Activations, of single values, which a compiler makes vector code of, and of vectors.

#ifndef EFFNETV2_TF_KERNELS_ACTIVATIONS_H_
#define EFFNETV2_TF_KERNELS_ACTIVATIONS_H_

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace effnetv2_tf {

// 2^x for |x| <= 0.5: the polynomial with the smallest error.
template <class Values>
Values SeriesOf2(Values x) {
  Values sum = 1.32764725e-3f * x + 9.67554096e-3f;
  sum = sum * x + 5.55071309e-2f;
  sum = sum * x + 0.240221202f;
  sum = sum * x + 0.693146944f;
  return sum * x + 1.00000012f;
}

// 2^x, of operations that a compiler makes vector ones of, with a relative error of 1e-7.
inline float PowerOf2(float x) {
  x = std::min(std::max(x, -126.0f), 126.0f);  // beyond, the result or its inverse is no normal number
  const float whole = std::nearbyint(x);
  float series = SeriesOf2(x - whole);
  int32_t bits;
  std::memcpy(&bits, &series, sizeof bits);
  bits += static_cast<int32_t>(whole) << 23;  // times 2^whole
  std::memcpy(&series, &bits, sizeof bits);
  return series;
}

// The exponent is rounded by up to 6e-8 of itself, which shows where the result is near 0 alone.
inline float OnePlusExp(float x) { return 1.0f + PowerOf2(1.44269504f * x); }

inline float Sigmoid(float z) { return 1.0f / OnePlusExp(-z); }

// The same, with instructions that compilers do not find in the above: 1 / x is one with 14 bits,
// once corrected.
inline Vector Sigmoid(Vector z) {
#ifdef __AVX512F__
  const __m512 low = _mm512_set1_ps(-126.0f), high = _mm512_set1_ps(126.0f);
  const __m512 exponent = _mm512_mul_ps(z, _mm512_set1_ps(-1.44269504f));
  const __m512 x = _mm512_min_ps(_mm512_max_ps(exponent, low), high);
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
  const __m512 power = _mm512_scalef_ps(SeriesOf2(Vector(_mm512_sub_ps(x, whole))), whole);
  const __m512 one = _mm512_set1_ps(1.0f), divisor = _mm512_add_ps(power, one);
  const __m512 inverse = _mm512_rcp14_ps(divisor);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(inverse, divisor, one), inverse, inverse);
#else
  float values[kWidth];
  Store(z, values);
  for (float& value : values) value = Sigmoid(value);
  return Load<Vector>(values);
#endif
}

// Activations and their derivatives, of single values and of vectors.
struct Identity {
  template <class Values>
  static Values Value(Values z) {
    return z;
  }
  static float Slope(float) { return 1.0f; }
};

struct Silu {
  static float Value(float z) { return z / OnePlusExp(-z); }
  static Vector Value(Vector z) { return z * Sigmoid(z); }
  static float Slope(float z) {
    const float gate = Sigmoid(z);
    return gate * (1.0f + z * (1.0f - gate));
  }
};

struct Relu6 {
  template <class Values>
  static Values Value(Values z) {  // NaNs stay NaNs
    const Values zero{}, six = zero + 6.0f;
    z = z < zero ? zero : z;
    return z > six ? six : z;
  }
};

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_ACTIVATIONS_H_
