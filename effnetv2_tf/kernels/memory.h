// Memory that an operation works in.

#ifndef EFFNETV2_TF_KERNELS_MEMORY_H_
#define EFFNETV2_TF_KERNELS_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace effnetv2_tf {

constexpr std::size_t kAlignment = 64;  // bytes: a line of the cache, as long as the longest vector

struct FreeAligned {
  void operator()(float* values) const {
    ::operator delete[](values, std::align_val_t{kAlignment});
  }
};

// Elements that nobody has set, from a line of the cache's start, or vectors would lie in two.
inline std::unique_ptr<float[], FreeAligned> Uninitialized(int64_t size) {
  void* memory = ::operator new[](size * sizeof(float), std::align_val_t{kAlignment});
  return std::unique_ptr<float[], FreeAligned>(static_cast<float*>(memory));
}

}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_MEMORY_H_
