// Images in tiles, as Winograd's algorithm takes them.

#ifndef EFFNETV2_TF_KERNELS_TILES_H_
#define EFFNETV2_TF_KERNELS_TILES_H_

#include "memory.h"
#include "strided.h"
#include "winograd.h"

namespace effnetv2_tf {
namespace winograd {

constexpr int64_t kTile = 4, kWideTile = 6;  // sides of tiles of the output
constexpr int64_t kCacheBytes = 3 << 18;

// A convolution's tiles: as many of its input as of its output, of side x side pixels, of which the
// last ones of rows and columns can reach beyond the image.
struct Grid {
  Grid(const Tensor& x, int64_t stride, int64_t side)
      : stride(stride),
        side(side),
        images(x.dim_size(0)),
        height(Side::Same(x.dim_size(1), kKernel, stride)),
        width(Side::Same(x.dim_size(2), kKernel, stride)),
        down((height.outputs + side - 1) / side),
        across((width.outputs + side - 1) / side) {}

  int64_t tiles() const { return images * down * across; }

  // Those of a piece of the work: as many as are multiplied at a time, or several times as many.
  std::pair<int64_t, int64_t> PartOfTiles(int64_t i, int64_t pieces) const {
    const auto [first, end] = PartOf(RoundUp(tiles(), kRows) / kRows, i, pieces);
    return {first * kRows, std::min(end * kRows, tiles())};
  }

  TensorShape Shape(int64_t filters) const {  // of the output
    return TensorShape({images, height.outputs, width.outputs, filters});
  }

  const int64_t stride, side, images;
  const Side height, width;
  const int64_t down, across;
};

// A batch of images, (batch, height, width, channels), in the tiles of a convolution.
class Tiled {
 public:
  // The input, where a tile of the output depends on it.
  static Tiled Inputs(const Grid& grid, int64_t channels) {
    return Tiled(grid, channels, grid.stride * grid.side, {grid.height.size, grid.width.size},
                 {grid.height.padding, grid.width.padding});
  }

  // The output, `border` pixels of the tile before included.
  static Tiled Outputs(const Grid& grid, int64_t channels, int64_t border) {
    return Tiled(grid, channels, grid.side, {grid.height.outputs, grid.width.outputs},
                 {border, border});
  }

  // The output where rows of pixels before `top`, all images' one after the other, are left out.
  static Tiled OutputsFrom(const Grid& grid, int64_t channels, int64_t top) {
    Tiled outputs = Outputs(grid, channels, 0);
    outputs.top_ = top;
    return outputs;
  }

  // The input, where its gradient depends on a tile of the output's with a border of 1.
  static Tiled InputGradients(const Grid& grid, int64_t channels) {
    return grid.stride == 1 ? Outputs(grid, channels, 0) : Inputs(grid, channels);
  }

  // Finds the rows of a tile of side x side pixels. Those that reach beyond the image are made in
  // `copy`, with zeros there.
  template <int side>
  void Read(const float* images, int64_t tile, float* copy, const float* (&rows)[side]) const {
    const Place place = Find(tile);
    const auto [left, right] = Within(place.x, side, size_.x);
    const auto [top, bottom] = Within(place.y, side, size_.y);
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
  template <int side>
  void FindRows(float* images, int64_t tile, float* copy, float* (&rows)[side]) const {
    const Place place = Find(tile);
    const bool is_inside = IsInside<side>(place);
    for (int64_t i = 0; i < side; ++i) {
      rows[i] = is_inside ? images + Offset(place, i) : copy + i * side * channels;
    }
  }

  // Whether such a tile lies within the image.
  template <int side>
  bool IsInside(int64_t tile) const {
    return IsInside<side>(Find(tile));
  }

  // Takes channels from `first` to before `end` of such a tile over from `copy`.
  template <int side>
  void TakeOver(const float* copy, int64_t tile, int64_t first, int64_t end, float* images) const {
    const Place place = Find(tile);
    if (IsInside<side>(place)) return;
    const auto [left, right] = Within(place.x, side, size_.x);
    const auto [top, bottom] = Within(place.y, side, size_.y);
    for (int64_t i = top; i < bottom; ++i) {
      for (int64_t j = left; j < right; ++j) {
        const float* pixel = copy + (i * side + j) * channels;
        std::copy(pixel + first, pixel + end, images + Offset(place, i) + j * channels + first);
      }
    }
  }

  // Calls work(pixel) for each pixel of such a tile that lies within the image.
  template <int side, class Work>
  void ForEachPixel(float* images, int64_t tile, Work work) const {
    const Place place = Find(tile);
    const auto [left, right] = Within(place.x, side, size_.x);
    const auto [top, bottom] = Within(place.y, side, size_.y);
    for (int64_t i = top; i < bottom; ++i) {
      for (int64_t j = left; j < right; ++j) work(images + Offset(place, i) + j * channels);
    }
  }

  const int64_t channels;

 private:
  struct Pixels {
    int64_t y, x;
  };
  struct Place {
    int64_t image, y, x;
  };

  Tiled(const Grid& grid, int64_t channels, int64_t step, Pixels size, Pixels border)
      : channels(channels),
        down_(grid.down),
        across_(grid.across),
        step_(step),
        size_(size),
        border_(border) {}

  Place Find(int64_t tile) const {
    return {tile / across_ / down_, tile / across_ % down_ * step_ - border_.y,
            tile % across_ * step_ - border_.x};
  }

  int64_t Offset(const Place& place, int64_t row) const {
    return ((place.image * size_.y + place.y + row - top_) * size_.x + place.x) * channels;
  }

  template <int side>
  bool IsInside(const Place& place) const {
    return std::min(place.y, place.x) >= 0 && place.y + side <= size_.y &&
           place.x + side <= size_.x;
  }

  // Which of `side` pixels from `start` on lie within `size`: from the first to before the second.
  static std::pair<int64_t, int64_t> Within(int64_t start, int64_t side, int64_t size) {
    return {std::max<int64_t>(0, -start), std::min(side, size - start)};
  }

  const int64_t down_, across_;  // tiles
  const int64_t step_;           // pixels from one to the next
  const Pixels size_, border_;
  int64_t top_ = 0;  // row of pixels, of all images', that comes first
};

// Tiles from `first` to before `end`, in blocks whose values, `values` for each tile, stay in a cache.
struct Range {
  Range(std::pair<int64_t, int64_t> tiles, int64_t values) : first(tiles.first), end(tiles.second) {
    const int64_t count = end - first;
    const int64_t most = std::max<int64_t>(2 * kRows, kCacheBytes / sizeof(float) / values);
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
