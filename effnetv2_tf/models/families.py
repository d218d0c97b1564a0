"""The families: one row a network, EfficientNetV2, EfficientNet V1, G16 and Lite.

Sources: EfficientNetV2 (Tan & Le, arXiv 2104.00298), tables 4 and 7; EfficientNet (Tan & Le,
arXiv 1905.11946), table 1; their reference implementations where the papers are silent.
G16-EfficientNet (Masters et al., arXiv 2106.03640).
"""

from __future__ import annotations

from dataclasses import replace

from effnetv2_tf.models.scaling import with_group_size
from effnetv2_tf.models.specs import (
    CENTRED_127,
    IMAGENET_STATISTICS,
    WHOLE_CENTRED_128,
    NetworkSpec,
    StageSpec,
)

_V2_BASE_STAGES = (
    StageSpec("fused", 3, 1, 1, 16, 1),
    StageSpec("fused", 3, 2, 4, 32, 2),
    StageSpec("fused", 3, 2, 4, 48, 2),
    StageSpec("mbconv", 3, 2, 4, 96, 3, 0.25),
    StageSpec("mbconv", 3, 1, 6, 112, 5, 0.25),
    StageSpec("mbconv", 3, 2, 6, 192, 8, 0.25),
)
_V2_S_STAGES = (
    StageSpec("fused", 3, 1, 1, 24, 2),
    StageSpec("fused", 3, 2, 4, 48, 4),
    StageSpec("fused", 3, 2, 4, 64, 4),
    StageSpec("mbconv", 3, 2, 4, 128, 6, 0.25),
    StageSpec("mbconv", 3, 1, 6, 160, 9, 0.25),
    StageSpec("mbconv", 3, 2, 6, 256, 15, 0.25),
)
_V2_M_STAGES = (
    StageSpec("fused", 3, 1, 1, 24, 3),
    StageSpec("fused", 3, 2, 4, 48, 5),
    StageSpec("fused", 3, 2, 4, 80, 5),
    StageSpec("mbconv", 3, 2, 4, 160, 7, 0.25),
    StageSpec("mbconv", 3, 1, 6, 176, 14, 0.25),
    StageSpec("mbconv", 3, 2, 6, 304, 18, 0.25),
    StageSpec("mbconv", 3, 1, 6, 512, 5, 0.25),
)
_V2_L_STAGES = (
    StageSpec("fused", 3, 1, 1, 32, 4),
    StageSpec("fused", 3, 2, 4, 64, 7),
    StageSpec("fused", 3, 2, 4, 96, 7),
    StageSpec("mbconv", 3, 2, 4, 192, 10, 0.25),
    StageSpec("mbconv", 3, 1, 6, 224, 19, 0.25),
    StageSpec("mbconv", 3, 2, 6, 384, 25, 0.25),
    StageSpec("mbconv", 3, 1, 6, 640, 7, 0.25),
)
_V2_XL_STAGES = (
    StageSpec("fused", 3, 1, 1, 32, 4),
    StageSpec("fused", 3, 2, 4, 64, 8),
    StageSpec("fused", 3, 2, 4, 96, 8),
    StageSpec("mbconv", 3, 2, 4, 192, 16, 0.25),
    StageSpec("mbconv", 3, 1, 6, 256, 24, 0.25),
    StageSpec("mbconv", 3, 2, 6, 512, 32, 0.25),
    StageSpec("mbconv", 3, 1, 6, 640, 8, 0.25),
)

EFFICIENTNETV2_B0 = NetworkSpec(
    name="efficientnetv2-b0",
    stages=_V2_BASE_STAGES,
    stem_filters=32,
    scale_head=True,
    dropout_rate=0.2,
    train_size=192,
    eval_size=224,
    preprocessing=IMAGENET_STATISTICS,
)
EFFICIENTNETV2_B1 = replace(
    EFFICIENTNETV2_B0, name="efficientnetv2-b1", depth=1.1, train_size=192, eval_size=240
)
EFFICIENTNETV2_B2 = replace(
    EFFICIENTNETV2_B0,
    name="efficientnetv2-b2",
    width=1.1,
    depth=1.2,
    dropout_rate=0.3,
    train_size=208,
    eval_size=260,
)
EFFICIENTNETV2_B3 = replace(
    EFFICIENTNETV2_B0,
    name="efficientnetv2-b3",
    width=1.2,
    depth=1.4,
    dropout_rate=0.3,
    train_size=240,
    eval_size=300,
)
EFFICIENTNETV2_S = NetworkSpec(
    name="efficientnetv2-s",
    stages=_V2_S_STAGES,
    stem_filters=24,
    dropout_rate=0.2,
    train_size=300,
    eval_size=384,
    preprocessing=WHOLE_CENTRED_128,
)
EFFICIENTNETV2_M = NetworkSpec(
    name="efficientnetv2-m",
    stages=_V2_M_STAGES,
    stem_filters=24,
    dropout_rate=0.3,
    train_size=384,
    eval_size=480,
    preprocessing=WHOLE_CENTRED_128,
)
EFFICIENTNETV2_L = NetworkSpec(
    name="efficientnetv2-l",
    stages=_V2_L_STAGES,
    stem_filters=32,
    dropout_rate=0.4,
    train_size=384,
    eval_size=480,
    preprocessing=WHOLE_CENTRED_128,
)
EFFICIENTNETV2_XL = NetworkSpec(
    name="efficientnetv2-xl",
    stages=_V2_XL_STAGES,
    stem_filters=32,
    dropout_rate=0.4,
    train_size=384,
    eval_size=512,
    preprocessing=WHOLE_CENTRED_128,
)

_V1_STAGES = (
    StageSpec("mbconv", 3, 1, 1, 16, 1, 0.25),
    StageSpec("mbconv", 3, 2, 6, 24, 2, 0.25),
    StageSpec("mbconv", 5, 2, 6, 40, 2, 0.25),
    StageSpec("mbconv", 3, 2, 6, 80, 3, 0.25),
    StageSpec("mbconv", 5, 1, 6, 112, 3, 0.25),
    StageSpec("mbconv", 5, 2, 6, 192, 4, 0.25),
    StageSpec("mbconv", 3, 1, 6, 320, 1, 0.25),
)


def _v1(variant: str, width: float, depth: float, size: int, dropout_rate: float) -> NetworkSpec:
    return NetworkSpec(
        name=f"efficientnet-{variant}",
        stages=_V1_STAGES,
        stem_filters=32,
        scale_head=True,
        width=width,
        depth=depth,
        rounding="at_least_90_percent",
        batch_norm_momentum=0.99,
        dropout_rate=dropout_rate,
        train_size=size,
        eval_size=size,
        preprocessing=IMAGENET_STATISTICS,
    )


EFFICIENTNET_B0 = _v1("b0", 1.0, 1.0, 224, 0.2)
EFFICIENTNET_B1 = _v1("b1", 1.0, 1.1, 240, 0.2)
EFFICIENTNET_B2 = _v1("b2", 1.1, 1.2, 260, 0.3)
EFFICIENTNET_B3 = _v1("b3", 1.2, 1.4, 300, 0.3)
EFFICIENTNET_B4 = _v1("b4", 1.4, 1.8, 380, 0.4)
EFFICIENTNET_B5 = _v1("b5", 1.6, 2.2, 456, 0.4)
EFFICIENTNET_B6 = _v1("b6", 1.8, 2.6, 528, 0.5)
EFFICIENTNET_B7 = _v1("b7", 2.0, 3.1, 600, 0.5)
EFFICIENTNET_B8 = _v1("b8", 2.2, 3.6, 672, 0.5)
EFFICIENTNET_L2 = _v1("l2", 4.3, 5.3, 800, 0.5)


def _g16(base: NetworkSpec) -> NetworkSpec:
    """G16-EfficientNet with proxy-normalised activations over layer norm."""
    grouped = with_group_size(base, 16, expansion=4)
    return replace(grouped, normalization="layer", proxy_normalization=True)


EFFICIENTNET_B0_G16 = _g16(EFFICIENTNET_B0)
EFFICIENTNET_B1_G16 = _g16(EFFICIENTNET_B1)
EFFICIENTNET_B2_G16 = _g16(EFFICIENTNET_B2)
EFFICIENTNET_B3_G16 = _g16(EFFICIENTNET_B3)
EFFICIENTNET_B4_G16 = _g16(EFFICIENTNET_B4)
EFFICIENTNET_B5_G16 = _g16(EFFICIENTNET_B5)

_LITE_STAGES = (
    replace(_V1_STAGES[0], se_ratio=0.0, scale_depth=False),
    *(replace(stage, se_ratio=0.0) for stage in _V1_STAGES[1:-1]),
    replace(_V1_STAGES[-1], se_ratio=0.0, scale_depth=False),
)


def _lite(variant: str, width: float, depth: float, size: int, dropout_rate: float) -> NetworkSpec:
    return replace(
        _v1(variant, width, depth, size, dropout_rate),
        stages=_LITE_STAGES,
        scale_stem=False,
        scale_head=False,
        activation="relu6",
        preprocessing=CENTRED_127,
    )


EFFICIENTNET_LITE0 = _lite("lite0", 1.0, 1.0, 224, 0.2)
EFFICIENTNET_LITE1 = _lite("lite1", 1.0, 1.1, 240, 0.2)
EFFICIENTNET_LITE2 = _lite("lite2", 1.1, 1.2, 260, 0.3)
EFFICIENTNET_LITE3 = _lite("lite3", 1.2, 1.4, 280, 0.3)
EFFICIENTNET_LITE4 = _lite("lite4", 1.4, 1.8, 300, 0.3)

SPECS: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        EFFICIENTNETV2_B0,
        EFFICIENTNETV2_B1,
        EFFICIENTNETV2_B2,
        EFFICIENTNETV2_B3,
        EFFICIENTNETV2_S,
        EFFICIENTNETV2_M,
        EFFICIENTNETV2_L,
        EFFICIENTNETV2_XL,
        EFFICIENTNET_B0,
        EFFICIENTNET_B1,
        EFFICIENTNET_B2,
        EFFICIENTNET_B3,
        EFFICIENTNET_B4,
        EFFICIENTNET_B5,
        EFFICIENTNET_B6,
        EFFICIENTNET_B7,
        EFFICIENTNET_B8,
        EFFICIENTNET_L2,
        EFFICIENTNET_B0_G16,
        EFFICIENTNET_B1_G16,
        EFFICIENTNET_B2_G16,
        EFFICIENTNET_B3_G16,
        EFFICIENTNET_B4_G16,
        EFFICIENTNET_B5_G16,
        EFFICIENTNET_LITE0,
        EFFICIENTNET_LITE1,
        EFFICIENTNET_LITE2,
        EFFICIENTNET_LITE3,
        EFFICIENTNET_LITE4,
    )
}
