"""What the network gets: order, augmentation and position are functions of seed and step."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data import pipeline as pipeline_module
from effnetv2_tf.data import small_images
from effnetv2_tf.data.pipeline import Augmentation, TrainingPipeline, evaluation_dataset
from effnetv2_tf.data.sources import ArraySource, ImageFolderSource, TFRecordSource
from effnetv2_tf.training.schedule import Regularization, StageSchedule

COUNT, CLASSES = 22, 3
PLAIN = Augmentation(crop="none", flip=False, policy="none")
RICH = Augmentation(crop="random_resized", flip=True, policy="none")
RANDAUGMENT = Augmentation(crop="none", flip=False, policy="randaugment", randaugment_layers=1)


def _source(channels=1, **options):
    """Image i has the value 10 i everywhere but a dark left column; its class is i modulo 3."""
    values = 10 * np.arange(COUNT, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (COUNT, 8, 8, channels)).copy()
    images[:, :, 0] //= 2
    return ArraySource(images, np.arange(COUNT) % CLASSES, **options)


def _stages(batch_size=4, **strengths):
    """Two stages of two epochs; with batches of 4 an epoch has 5 steps and leaves 2 images."""
    return StageSchedule.progressive(
        epochs=4,
        num_examples=COUNT,
        batch_size=batch_size,
        image_size=(8, 12),
        num_stages=2,
        start=Regularization(**strengths),
        end=Regularization(**strengths),
    ).stages


def _take(dataset, count):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def _assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def _numbers(batches):
    """Which images these are: the value of the last pixel tells."""
    return [int(image[-1, -1, 0]) // 10 for images, *_ in batches for image in images]


def test_batches_are_pixels_and_one_hot_labels():
    pipeline = TrainingPipeline(_source(), PLAIN)
    for stage in _stages():
        (images, labels), *_ = _take(pipeline(stage, stage.first_step), 1)
        size = stage.image_size
        assert images.shape == (4, size, size, 1)
        assert images.dtype == labels.dtype == np.float32
        assert labels.argmax(1).tolist() == [i % CLASSES for i in _numbers([(images,)])]
        assert labels.sum() == 4
        assert pipeline(stage, stage.first_step).element_spec[0].shape == (4, size, size, 1)


def test_every_image_at_most_once_an_epoch_and_in_another_order_each_epoch():
    pipeline = TrainingPipeline(_source(), PLAIN, seed=3)
    stage = _stages()[0]
    batches = _take(pipeline(stage, 0), 10)
    first, second = _numbers(batches[:5]), _numbers(batches[5:])
    assert len(set(first)) == len(set(second)) == 20
    assert first != second
    seen = {i for epoch in range(8) for i in _numbers(_take(pipeline(stage, 5 * epoch), 5))}
    assert seen == set(range(COUNT))  # nobody is left out for ever


def test_batches_that_divide_the_images_hold_every_image():
    numbers = _numbers(_take(TrainingPipeline(_source(), PLAIN)(_stages(11)[0], 0), 2))
    assert sorted(numbers) == list(range(COUNT))


@pytest.mark.parametrize("augmentation", [PLAIN, RICH], ids=["plain", "rich"])
def test_the_seed_decides(augmentation):
    stage = _stages(mixup_alpha=0.4, cutmix_alpha=0.5)[0]

    def batches(seed):
        return _take(TrainingPipeline(_source(), augmentation, seed)(stage, 0), 6)

    tf.random.set_seed(1)
    once = batches(7)
    tf.random.set_seed(2)  # is not to matter
    _assert_equal(batches(7), once)
    assert not np.array_equal(batches(8)[0][0], once[0][0])


def test_starting_at_a_step_equals_skipping():
    """Bit for bit, also across the border of epochs at steps 5 and 10."""
    stage = _stages(mixup_alpha=0.4)[0]
    pipeline = TrainingPipeline(_source(), RICH, seed=5)
    expected = _take(pipeline(stage, 0), 12)
    for start in (1, 4, 5, 9):
        _assert_equal(_take(pipeline(stage, start), 12 - start), expected[start:])


def test_starting_in_a_later_stage_equals_skipping():
    stage = _stages(randaugment_magnitude=8)[1]
    assert stage.first_step == 10
    pipeline = TrainingPipeline(_source(), RANDAUGMENT, seed=5)
    expected = _take(pipeline(stage, 10), 8)
    _assert_equal(_take(pipeline(stage, 13), 5), expected[3:])


def test_stages_with_other_batch_sizes_continue_the_epochs():
    first, second = _stages([4, 11])
    pipeline = TrainingPipeline(_source(), PLAIN, seed=5)
    third_epoch = _numbers(_take(pipeline(second, second.first_step), 2))
    assert sorted(third_epoch) == list(range(COUNT))
    earlier = _numbers(_take(pipeline(first, 0), 10))
    assert third_epoch[:20] not in (earlier[:20], earlier[20:])


def test_augmentation_differs_from_epoch_to_epoch_and_image_to_image():
    images = np.tile(
        np.random.default_rng(0).integers(0, 255, (1, 16, 16, 1), np.uint8), (2, 1, 1, 1)
    )
    source = ArraySource(images, np.array([0, 1]))
    stage = StageSchedule.progressive(
        epochs=4, num_examples=2, batch_size=2, image_size=(12, 12), num_stages=1
    ).stages[0]
    crop = Augmentation(crop="random_resized", flip=False, policy="none")
    seen = np.concatenate([x for x, _ in _take(TrainingPipeline(source, crop)(stage, 0), 4)])
    assert len({image.tobytes() for image in seen}) == 8


def test_flips_about_half():
    stage = _stages(11)[0]
    flip = Augmentation(crop="none", flip=True, policy="none")
    batches = _take(TrainingPipeline(_source(), flip)(stage, 0), 20)
    images = np.concatenate([images for images, _ in batches])
    bright = images[images.max((1, 2, 3)) > 0]  # image 0 is black
    flipped = bright[:, 0, 0, 0] > bright[:, 0, -1, 0]
    assert 0.35 < flipped.mean() < 0.65


def test_a_magnitude_of_0_is_no_randaugment():
    off, on = (_stages(randaugment_magnitude=magnitude)[0] for magnitude in (0, 10))
    pipeline = TrainingPipeline(_source(), RANDAUGMENT, seed=2)
    plain = _take(TrainingPipeline(_source(), PLAIN, seed=2)(_stages()[0], 0), 5)
    _assert_equal(_take(pipeline(off, 0), 5), plain)
    assert not np.array_equal(_take(pipeline(on, 0), 1)[0][0], plain[0][0])


def test_mixup_mixes_labels_as_images():
    """Grey values are linear in the image number, so the label says what the pixel must be."""
    stage = _stages(11, mixup_alpha=1.0)[0]
    mixed = 0
    for images, labels in _take(TrainingPipeline(_source(), PLAIN, seed=1)(stage, 0), 6):
        np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-5)
        mixed += int((labels.max(1) < 1 - 1e-4).sum())
        assert images.min() >= 0
        assert images.max() <= 210
        np.testing.assert_allclose(images[:, -1, -1], images[:, 0, -1], rtol=1e-5)
    assert mixed > 20


def test_class_weights_follow_the_label():
    stage = _stages(11)[0]
    weights = {0: 2.0, 2: 0.5}  # 1 is not named
    pipeline = TrainingPipeline(_source(), PLAIN, class_weights=weights)
    _, labels, found = _take(pipeline(stage, 0), 1)[0]
    np.testing.assert_allclose(found, np.array([2.0, 1.0, 0.5])[labels.argmax(1)])
    mixing = _stages(11, mixup_alpha=1.0)[0]
    _, labels, found = _take(pipeline(mixing, 0), 1)[0]
    np.testing.assert_allclose(found, labels @ np.array([2.0, 1.0, 0.5]), rtol=1e-5)


@pytest.mark.parametrize(("stored", "wanted"), [(1, 3), (3, 1)])
def test_channels_are_converted(stored, wanted):
    stage = _stages()[0]
    images = _take(TrainingPipeline(_source(stored), PLAIN, channels=wanted)(stage, 0), 5)
    assert images[0][0].shape == (4, 8, 8, wanted)
    assert len(set(_numbers(images))) == 20
    evaluation = evaluation_dataset(_source(stored), 8, 4, crop="none", channels=wanted)
    assert _take(evaluation, 1)[0][0].shape == (4, 8, 8, wanted)


def test_shards_together_are_the_whole():
    stage = _stages(11)[0]
    per_shard = [
        _numbers(_take(TrainingPipeline(_source(shard=(i, 2)), PLAIN)(stage, 0), 1)) for i in (0, 1)
    ]
    assert sorted(per_shard[0] + per_shard[1]) == list(range(COUNT))


def test_shards_augment_differently():
    """Of one image many times over no two crops are alike, on whatever shard."""
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 1), np.uint8)
    images, labels = np.repeat(image, COUNT, axis=0), np.arange(COUNT) % CLASSES
    stage = _stages(11)[0]
    crops = [
        crop
        for index in (0, 1)
        for batch, _ in _take(
            TrainingPipeline(ArraySource(images, labels, shard=(index, 2)), RICH)(stage, 0), 1
        )
        for crop in batch
    ]
    assert len({crop.tobytes() for crop in crops}) == len(crops) == COUNT


def test_the_number_of_randaugments_operations_arrives(monkeypatch):
    asked = []
    monkeypatch.setattr(
        pipeline_module, "RandAugment", lambda *given: asked.append(given) or (lambda x, seed: x)
    )
    augmentation = Augmentation(crop="none", flip=False, policy="randaugment", randaugment_layers=3)
    TrainingPipeline(_source(), augmentation)(_stages(randaugment_magnitude=7.0)[0], 0)
    assert set(asked) == {(3, 7.0)}


def _folder(tmp_path, bad=(), values=range(0, 200, 20)):
    """Ten images of two classes; bad ones break after the folder was listed, which tests all."""
    paths = []
    for number, value in enumerate(values):
        path = tmp_path / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_png(np.full((9, 7, 3), value, np.uint8)).numpy())
        paths.append(path)
    source = ImageFolderSource(tmp_path, max_bad_share=0.5)
    for number in bad:
        paths[number].write_bytes(paths[number].read_bytes()[:-25])
    return source


FOLDER_STAGE = StageSchedule.progressive(
    epochs=2, num_examples=10, batch_size=5, image_size=(8, 8), num_stages=1
).stages[0]


@pytest.mark.parametrize("crop", ["none", "random_resized", "pad"])
def test_bad_files_are_replaced_counted_and_shift_nothing(tmp_path, crop):
    augmentation = Augmentation(crop=crop, flip=False, policy="none", crop_padding=1)
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    good = TrainingPipeline(_folder(tmp_path / "good"), augmentation, seed=1)
    source = _folder(tmp_path / "bad", bad=(3, 8))
    bad = TrainingPipeline(source, augmentation, seed=1)
    bad_images = 0
    for (images, labels), (expected, expected_labels) in zip(
        _take(bad(FOLDER_STAGE, 0), 2), _take(good(FOLDER_STAGE, 0), 2), strict=True
    ):
        values = expected[:, 4, 4, 0]
        replaced = np.isin(values, (60, 160))
        bad_images += replaced.sum()
        np.testing.assert_array_equal(images[~replaced], expected[~replaced])
        np.testing.assert_array_equal(labels[~replaced], expected_labels[~replaced])
        assert set(images[replaced][:, 4, 4, 0]) <= set(values[~replaced])
        np.testing.assert_array_equal(labels.argmax(1), images[:, 4, 4, 0] // 20 % 2)
    assert bad_images == 2
    assert sorted(name.rpartition("/")[2] for name in source.bad_records.names()) == [
        "3.png",
        "8.png",
    ]


def test_bad_files_are_replaced_before_images_are_mixed(tmp_path):
    """Otherwise the black in their place, and their labels, would lie within other images."""
    source = _folder(tmp_path, bad=(3, 8), values=[100, 200] * 5)
    stage = StageSchedule.progressive(
        epochs=2,
        num_examples=10,
        batch_size=5,
        image_size=(8, 8),
        num_stages=1,
        end=Regularization(mixup_alpha=1.0),
    ).stages[0]
    for images, labels in _take(TrainingPipeline(source, PLAIN, seed=1)(stage, 0), 2):
        assert (labels.max(axis=1) < 1).any()
        np.testing.assert_allclose(images[:, 4, 4, 0], labels @ [100.0, 200.0], rtol=1e-5)


def test_evaluation_is_in_order_whole_and_repeatable():
    dataset = evaluation_dataset(_source(), 8, 5, crop="none")
    batches = _take(dataset, 99)
    assert [len(images) for images, _ in batches] == [5, 5, 5, 5, 2]
    assert _numbers(batches) == list(range(COUNT))
    assert [int(i) for _, labels in batches for i in labels.argmax(1)] == [
        i % CLASSES for i in range(COUNT)
    ]
    assert batches[0][0].dtype == np.float32
    _assert_equal(_take(dataset, 99), batches)


def test_evaluation_leaves_bad_files_out_and_counts_them(tmp_path):
    source = _folder(tmp_path, bad=(3,))
    batches = _take(evaluation_dataset(source, 8, 4, crop="none"), 99)
    values = [int(image[4, 4, 0]) for images, _ in batches for image in images]
    assert sorted(values) == [20 * i for i in range(10) if i != 3]
    assert source.bad_records.count == 1


def test_the_centre_crop_keeps_the_references_share():
    """That is size / (size + padding) of the shorter side: here the middle 8 of 16 pixels."""
    image = np.zeros((16, 16), np.uint8)
    image[4:12, 4:12] = 200
    source = ArraySource(np.stack([image, image]), np.array([0, 1]))
    images, _ = _take(evaluation_dataset(source, 8, 2, crop_padding=8), 1)[0]
    assert images.mean() > 190
    images, _ = _take(evaluation_dataset(source, 8, 2, crop="none"), 1)[0]
    assert images.mean() == pytest.approx(50, abs=10)


@pytest.mark.parametrize(("crop", "padding"), [("none", 0), ("center", 4)])
def test_a_stage_with_the_evaluations_preprocessing(crop, padding):
    """Its images are the evaluation's, whatever the training images go through."""
    source = _source()
    rich = Augmentation(crop="random_resized", mixing="both", cutmix_lambda=0.5)
    plain = Augmentation(crop, crop_padding=padding, flip=False, policy="none")
    schedule = StageSchedule.progressive(
        epochs=1,
        num_examples=COUNT,
        batch_size=11,
        image_size=(8, 8),
        num_stages=1,
        end=Regularization(mixup_alpha=0.5, randaugment_magnitude=9),
    ).with_fine_tuning(12, 1)
    stage = schedule.stages[1]
    pipeline = TrainingPipeline(source, rich, evaluation=plain)
    ours = _take(pipeline(stage, stage.first_step), 2)
    theirs = evaluation_dataset(
        source, 12, COUNT, crop=crop, crop_padding=padding, interpolation="bilinear"
    )
    images, labels = next(theirs.as_numpy_iterator())
    order = np.argsort([image[-1, -1, 0] for images, _ in ours for image in images])
    np.testing.assert_array_equal(np.concatenate([x for x, _ in ours])[order], images)
    np.testing.assert_array_equal(np.concatenate([y for _, y in ours])[order], labels)
    mixed = _take(pipeline(schedule.stages[0], 0), 1)[0][1]
    assert ((mixed > 0).sum(axis=1) > 1).any()


def test_mixing_both_after_one_another():
    """The pipeline's batches are `mixup_then_cutmix`'s, from the unmixed ones."""
    stage = _stages(mixup_alpha=0.7, cutmix_alpha=1.0)[0]
    both = Augmentation(crop="none", flip=False, policy="none", mixing="both")
    batches = _take(TrainingPipeline(_source(), both, seed=5)(stage, 0), 5)
    _assert_equal(_take(TrainingPipeline(_source(), both, seed=5)(stage, 2), 3), batches[2:])
    classes = [np.count_nonzero(label) for _, labels in batches for label in labels]
    assert max(classes) == 3  # of three classes; either of the two mixes two images
    either = Augmentation(crop="none", flip=False, policy="none")
    pairs = _take(TrainingPipeline(_source(), either, seed=5)(stage, 0), 5)
    assert max(np.count_nonzero(label) for _, labels in pairs for label in labels) == 2


def test_a_share_of_cutmix_without_both():
    with pytest.raises(ValueError, match="cutmix_lambda: expected none with mixing 'either'"):
        Augmentation(cutmix_lambda=0.85)


@pytest.mark.parametrize("kind", ["small arrays", "large arrays", "files"])
def test_a_stage_decides_how_much_of_an_image_its_crops_show(kind, tmp_path):
    """Every pixel tells its column, so a crop's range of values is its width."""
    side = 32 if kind == "small arrays" else 128
    columns = np.arange(side) * (256 // side)
    images = np.broadcast_to(columns.astype(np.uint8), (COUNT, side, side))[..., None].copy()
    if kind == "files":
        for number, image in enumerate(images):
            path = tmp_path / f"class{number % CLASSES}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())
        source = ImageFolderSource(tmp_path)
    else:
        source = ArraySource(images, np.arange(COUNT) % CLASSES)
    augmentation = Augmentation(crop_aspect_ratio=(1, 1), crop_area=(0.5, 1), policy="none")

    def widths(**areas):
        stage = _stages(**areas)[0]
        images = [x for x, _ in _take(TrainingPipeline(source, augmentation)(stage, 0), 15)]
        return np.concatenate([(x.max((1, 2, 3)) - x.min((1, 2, 3))) / 256 for x in images])

    # An 8-pixel image's outermost values lie an eighth of its width within it.
    quarter = widths(crop_area_min=0.25, crop_area_max=0.25)
    np.testing.assert_allclose(quarter, 0.5 * 7 / 8, atol=0.04)
    assert widths(crop_area_max=0.6).max() < 0.6**0.5
    assert widths(crop_area_min=0.9).min() > 0.9**0.5 * 7 / 8 - 0.05


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", ["random_resized", "pad"])
def test_crops_of_batches_are_those_of_single_images(crop, channels, monkeypatch):
    """Small images in memory are cropped a batch at a time, with the same random numbers."""
    values = np.random.default_rng(0).integers(0, 256, (COUNT, 20, 24, 1), np.uint8)
    source = ArraySource(values, np.arange(COUNT) % CLASSES)
    augmentation = Augmentation(crop=crop, policy="none")
    stage = _stages(mixup_alpha=0.2)[1]

    def batches():
        pipeline = TrainingPipeline(source, augmentation, seed=3, channels=channels)
        return _take(pipeline(stage, stage.first_step + 2), 6)

    together = batches()
    monkeypatch.setattr(small_images, "LARGEST_SIDE", 0)
    for ours, theirs in zip(together, batches(), strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], atol=1)
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize(
    ("changed", "side"),
    [
        ({"interpolation": "bicubic"}, 20),
        ({"crop": "none"}, 20),
        ({"crop": "center"}, 20),
        ({}, small_images.LARGEST_SIDE + 1),
    ],
)
def test_other_crops_and_images_are_taken_singly(changed, side):
    source = ArraySource(np.zeros((2, 16, side, 1), np.uint8), [0, 1])
    augmentation = Augmentation(**changed)
    assert small_images.SmallImages.of(source, augmentation, 16) is None


def _several_labels(tmp_path):
    """Records of four classes with the labels 1; 1, 2 and 3; none; 0 and 3."""
    picture = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
        for labels in ([1], [1, 2, 3], [], [0, 3]):
            feature = tf.train.Example()
            feature.features.feature["image/encoded"].bytes_list.value.append(picture)
            feature.features.feature["image/class/label"].int64_list.value.extend(labels)
            writer.write(feature.SerializeToString())
    return TFRecordSource(str(tmp_path), num_classes=4, label_offset=0, multi_label=True)


def _one_batch(pipeline, **strengths):
    strength = Regularization(**strengths)
    schedule = StageSchedule.progressive(
        epochs=1, num_examples=4, batch_size=4, image_size=(8, 8), num_stages=1, end=strength
    )
    return _take(pipeline(schedule.stages[0], 0), 1)[0]


def test_weights_of_one_change_nothing_whatever_the_labels(tmp_path):
    source = _several_labels(tmp_path)
    for share in (False, True):
        pipeline = TrainingPipeline(source, PLAIN, class_weights={0: 1.0}, share_labels=share)
        np.testing.assert_allclose(_one_batch(pipeline)[2], 1, rtol=1e-6)


def test_an_image_with_several_labels_has_the_mean_of_their_weights(tmp_path):
    pipeline = TrainingPipeline(_several_labels(tmp_path), PLAIN, class_weights={1: 4.0, 3: 0.0})
    _, labels, found = _one_batch(pipeline)
    expected = {(0, 1, 0, 0): 4, (0, 1, 1, 1): 5 / 3, (0, 0, 0, 0): 1, (1, 0, 0, 1): 0.5}
    for label, weight in zip(labels.astype(int), found, strict=True):
        assert weight == pytest.approx(expected[tuple(label)])


def test_labels_are_shared_before_images_are_mixed(tmp_path):
    source = _several_labels(tmp_path)
    plain = _one_batch(TrainingPipeline(source, PLAIN, share_labels=True))[1]
    assert sorted(plain.sum(1)) == pytest.approx([0, 1, 1, 1])
    _, mixed = _one_batch(TrainingPipeline(source, PLAIN, share_labels=True), mixup_alpha=1.0)
    for own, partner, label in zip(plain, np.roll(plain, 1, axis=0), mixed, strict=True):
        part = np.linalg.lstsq(np.stack([own, partner], 1), label, rcond=None)[0]
        np.testing.assert_allclose(part[0] * own + part[1] * partner, label, atol=1e-5)
        if own.any() and partner.any():
            assert part.sum() == pytest.approx(1, abs=1e-4)


def test_evaluation_shares_labels_too(tmp_path):
    dataset = evaluation_dataset(_several_labels(tmp_path), 8, 4, share_labels=True)
    np.testing.assert_allclose(_take(dataset, 1)[0][1][1], [0, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_nothing_is_converted_by_autograph():
    """Which takes longer than all else before a small run's first step."""
    seen = []

    class Watching(ArraySource):
        def fetch(self, entry):
            seen.append(tf.__internal__.autograph.control_status_ctx().status.name)
            return super().fetch(entry)

    source = Watching(np.zeros((8, 8, 8, 1), np.uint8), np.arange(8), list("abcdefgh"))
    _take(TrainingPipeline(source)(_stages()[0]), 1)
    _take(evaluation_dataset(source, image_size=8, batch_size=4), 1)
    assert source.labels().tolist() == list(range(8))
    assert len(seen) >= 3 and set(seen) == {"DISABLED"}
