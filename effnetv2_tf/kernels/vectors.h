// Vectors of the processor's width, and rows of channels in such vectors.

#ifndef EFFNETV2_TF_KERNELS_VECTORS_H_
#define EFFNETV2_TF_KERNELS_VECTORS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace effnetv2_tf {

#if defined(__AVX512F__)
constexpr int64_t kWidth = 16;  // elements
#elif defined(__AVX__)
constexpr int64_t kWidth = 8;
#else
constexpr int64_t kWidth = 4;
#endif

typedef float Vector __attribute__((vector_size(kWidth * sizeof(float))));

// Of a vector, or of a single float.
template <class Values>
Values Load(const float* from) {
  Values values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

template <class Values>
void Store(Values values, float* to) {
  std::memcpy(to, &values, sizeof values);
}

// A vector of a matrix's row, of which the last can be of fewer columns than it has elements.
struct WholeVector {
  static Vector Load(const float* from) { return effnetv2_tf::Load<Vector>(from); }
  static void Store(Vector vector, float* to) { effnetv2_tf::Store(vector, to); }
};

struct PartOfVector {
  Vector Load(const float* from) const {  // then zeros
    Vector vector{};
    std::memcpy(&vector, from, size * sizeof(float));
    return vector;
  }
  void Store(Vector vector, float* to) const { std::memcpy(to, &vector, size * sizeof(float)); }

  int64_t size;
};

// Calls work(channel, Values{}) with vectors that cover all channels, the last one some of them
// again; where there are fewer than a vector has, with floats.
template <class Work>
void ForEachVector(int64_t channels, Work work) {
  if (channels < kWidth) {
    for (int64_t c = 0; c < channels; ++c) work(c, 0.0f);
  } else {
    for (int64_t c = 0; c < channels; c += kWidth) work(std::min(c, channels - kWidth), Vector{});
  }
}

// The same, each channel once: the last ones as floats.
template <class Work>
void ForEachVectorOnce(int64_t channels, Work work) {
  int64_t c = 0;
  for (; c + kWidth <= channels; c += kWidth) work(c, Vector{});
  for (; c < channels; ++c) work(c, 0.0f);
}

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_VECTORS_H_
