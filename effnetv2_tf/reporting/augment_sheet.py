"""One picture of what the network sees: sample images, a row for every stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from effnetv2_tf.data.pipeline import TrainingPipeline
from effnetv2_tf.reporting.files import save_figure
from effnetv2_tf.training.schedule import Stage, StageSchedule


def draw_augment_sheet(
    pipeline: TrainingPipeline, schedule: StageSchedule, images: int, path: Path, title: str
) -> None:
    """Draws the first images of every stage, augmented and mixed, at their true relative size.

    Args:
      pipeline: of the training split.
      schedule: its stages are the rows.
      images: in each row, at most a batch.
      path: of the PNG file.
      title: over the picture.
    """
    stages = schedule.stages
    largest = max(stage.image_size for stage in stages)
    figure = Figure(figsize=(1.6 * images + 2.4, 2.0 * len(stages) + 0.6), layout="constrained")
    figure.suptitle(title)
    grid = np.atleast_2d(figure.subplots(len(stages), images, squeeze=False))
    for row, stage in zip(grid, stages, strict=True):
        pixels, labels = _first_batch(pipeline, stage)
        for axes in row:
            axes.set_axis_off()
        for axes, image, label in zip(row, pixels, labels, strict=False):
            _show(axes, image, stage.image_size, largest)
            axes.set_title(_label_text(label, pipeline.source.info.class_names), fontsize=7)
        row[0].text(
            -0.15,
            0.5,
            _stage_text(stage),
            transform=row[0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
        )
    save_figure(figure, path)


def _first_batch(pipeline: TrainingPipeline, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    batch = next(iter(pipeline(stage, start_step=stage.first_step)))
    return batch[0].numpy(), batch[1].numpy()


def _show(axes, image: np.ndarray, size: int, largest: int) -> None:
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    axes.imshow(pixels, extent=(0, size, size, 0), interpolation="nearest")
    margin = (largest - size) / 2
    axes.set_xlim(-margin, size + margin)
    axes.set_ylim(size + margin, -margin)


def _label_text(label: np.ndarray, names: tuple[str, ...]) -> str:
    order = [i for i in np.argsort(-label) if label[i] > 0.005][:2]
    return "\n".join(names[i] if label[i] > 0.995 else f"{names[i]} {label[i]:.0%}" for i in order)


def _stage_text(stage: Stage) -> str:
    strengths = [
        f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in vars(stage.regularization).items()
        if value is not None
    ]
    return "\n".join([f"stage {stage.index + 1}", f"{stage.image_size} px", *strengths])
