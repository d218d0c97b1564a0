"""Keras's warnings where nothing is wrong."""

import warnings

from effnetv2_tf.training.trainer import Trainer


def test_images_that_may_be_left_out_raise_no_warning(write_classes, make_recipe, tmp_path):
    options = {"directory": str(write_classes(tmp_path / "images", ("cat", "dog"), count=8))}
    recipe = make_recipe(
        {"source": "image_folder", "options": options, "eval_batch_size": 1},
        training={"epochs": 2},
        progressive={"stages": 2, "image_size": [8, 12]},
    )
    trainer = Trainer(recipe, tmp_path / "run", verbose=0)
    assert trainer._evaluation_dataset().cardinality() < 0  # unknown: any image may be bad
    assert trainer.progressive.fit_dataset().cardinality() == 14 // 4
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer.run()
    assert not [str(w.message) for w in seen if "ran out of data" in str(w.message)]
    assert len(trainer.records.rows) == 2
