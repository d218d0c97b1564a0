// Images in tiles, as Winograd's algorithm takes them.

#ifndef EFFNETV2_TF_KERNELS_TILES_H_
#define EFFNETV2_TF_KERNELS_TILES_H_

#include "memory.h"
#include "rows.h"
#include "winograd.h"

namespace effnetv2_tf {
namespace winograd {

inline int64_t RoundUp(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

// A batch of images, (batch, height, width, channels), in tiles of kTile x kTile pixels, of which
// the last ones of rows and columns can reach beyond the image.
class Tiled {
 public:
  explicit Tiled(const Tensor& images)
      : Tiled(images.dim_size(0), images.dim_size(1), images.dim_size(2), images.dim_size(3)) {}

  // The same with other channels.
  Tiled With(int64_t channels) const { return Tiled(count_, height_, width_, channels); }

  int64_t tiles() const { return count_ * down_ * across_; }

  // Finds the rows of side x side pixels from `border` before a tile's first one. Rows that reach
  // beyond the image are made in `copy`, with zeros there.
  template <int side>
  void Read(const float* images, int64_t tile, int64_t border, float* copy,
            const float* (&rows)[side]) const {
    const Place place = Find(tile, border);
    const auto [left, right] = Within(place.x, side, width_);
    const auto [top, bottom] = Within(place.y, side, height_);
    for (int64_t i = 0; i < side; ++i, copy += side * channels) {
      const bool is_inside = i >= top && i < bottom;
      const float* row = images + Offset(place, i);
      rows[i] = is_inside && right - left == side ? row : copy;
      if (rows[i] == row) continue;
      std::fill_n(copy, side * channels, 0.0f);
      if (!is_inside) continue;
      std::copy(row + left * channels, row + right * channels, copy + left * channels);
    }
  }

  // Finds the rows of a tile to write to, in `copy` if it reaches beyond the image.
  void FindRows(float* images, int64_t tile, float* copy, float* (&rows)[kTile]) const {
    const Place place = Find(tile, 0);
    for (int64_t i = 0; i < kTile; ++i) {
      rows[i] = IsInside(place) ? images + Offset(place, i) : copy + i * kTile * channels;
    }
  }

  // Takes channels from `first` to before `end` of such a tile over from `copy`.
  void TakeOver(const float* copy, int64_t tile, int64_t first, int64_t end, float* images) const {
    const Place place = Find(tile, 0);
    if (IsInside(place)) return;
    for (int64_t i = 0; i < std::min<int64_t>(kTile, height_ - place.y); ++i) {
      for (int64_t j = 0; j < std::min<int64_t>(kTile, width_ - place.x); ++j) {
        const float* pixel = copy + (i * kTile + j) * channels;
        std::copy(pixel + first, pixel + end, images + Offset(place, i) + j * channels + first);
      }
    }
  }

  const int64_t channels;

 private:
  struct Place {
    int64_t image, y, x;
  };

  Tiled(int64_t count, int64_t height, int64_t width, int64_t channels)
      : channels(channels),
        count_(count),
        height_(height),
        width_(width),
        down_((height + kTile - 1) / kTile),
        across_((width + kTile - 1) / kTile) {}

  Place Find(int64_t tile, int64_t border) const {
    return {tile / across_ / down_, tile / across_ % down_ * kTile - border,
            tile % across_ * kTile - border};
  }

  int64_t Offset(const Place& place, int64_t row) const {
    return ((place.image * height_ + place.y + row) * width_ + place.x) * channels;
  }

  bool IsInside(const Place& place) const {
    return place.y + kTile <= height_ && place.x + kTile <= width_;
  }

  // Which of `side` pixels from `start` on lie within `size`: from the first to before the second.
  static std::pair<int64_t, int64_t> Within(int64_t start, int64_t side, int64_t size) {
    return {std::max<int64_t>(0, -start), std::min(side, size - start)};
  }

  const int64_t count_, height_, width_, down_, across_;
};

// Tiles from `first` to before `end`, in blocks whose values at the points, `channels` for each
// tile, stay in a cache.
struct Range {
  Range(std::pair<int64_t, int64_t> tiles, int64_t channels, int64_t cache_bytes)
      : first(tiles.first), end(tiles.second) {
    const int64_t tile_bytes = kPoints * channels * sizeof(float), count = end - first;
    const int64_t most = std::max(2 * kRows, cache_bytes / tile_bytes);
    const int64_t blocks = std::max<int64_t>(1, (count + most - 1) / most);
    block = RoundUp((count + blocks - 1) / blocks, kRows);
  }

  // Calls work(first tile, number of tiles) for each block.
  template <class Work>
  void ForEachBlock(Work work) const {
    for (int64_t tile = first; tile < end; tile += block) work(tile, std::min(block, end - tile));
  }

  const int64_t first, end;
  int64_t block;  // tiles
};

}  // namespace winograd
}  // namespace effnetv2_tf

#endif  // EFFNETV2_TF_KERNELS_TILES_H_
