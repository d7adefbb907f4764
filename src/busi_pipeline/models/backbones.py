"""The table of backbones: one entry a network, all that training has to know of it.

A new network is one entry here; an experiment then names it in
`conf/base/parameters_experiments.yml`.
Input conventions are those of `keras.applications` (https://keras.io/api/applications/).
"""

from dataclasses import dataclass
from typing import Literal

from busi_pipeline.errors import BadInputError


@dataclass(frozen=True)
class Preprocessing:
    """How raw RGB in 0-255 becomes what the pretrained network was trained on.

    The network sees `pixel * scale + offset`, channel by channel, after the channels were put in
    `order`. Three-element tuples follow `order`.
    """

    order: Literal["rgb", "bgr"]
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


# CAFFE: BGR minus the ImageNet mean. TF: RGB in [-1, 1]. TORCH: RGB, ImageNet mean and standard
# deviation; as in keras.applications.imagenet_utils.preprocess_input. NONE: the network normalises.
CAFFE = Preprocessing("bgr", (1.0, 1.0, 1.0), (-103.939, -116.779, -123.68))
TF = Preprocessing("rgb", (1 / 127.5,) * 3, (-1.0, -1.0, -1.0))
NONE = Preprocessing("rgb", (1.0,) * 3, (0.0,) * 3)
TORCH = Preprocessing(
    "rgb",
    (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
    (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
)


@dataclass(frozen=True)
class Backbone:
    """One network of `keras.applications`.

    Attributes:
        builder: name of the function in `keras.applications`.
        image_size: height and width in pixels the ImageNet weights were trained at.
        minimum_size: smallest height and width the network can be built for.
        preprocessing: the input convention of its ImageNet weights.
        freeze_until: name of the layer whose output feeds the tail that is fine-tuned; all layers
            up to it stay frozen. It must be the only path from input to output (no skip around it).
        imagenet_file: how the name of Keras' download begins, in its folder of models.
        pyramid: layers whose outputs have an 8th, a 16th and a 32nd of the image's side, which a
            localizer reads; None where it cannot be used for one.
    """

    builder: str
    image_size: int
    minimum_size: int
    preprocessing: Preprocessing
    freeze_until: str
    imagenet_file: str
    pyramid: tuple[str, str, str] | None = None


BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone(
        builder="VGG16",
        image_size=224,
        minimum_size=32,
        preprocessing=CAFFE,
        freeze_until="block4_pool",
        imagenet_file="vgg16_weights",
        pyramid=("block3_pool", "block4_pool", "block5_pool"),
    ),
    "resnet50": Backbone(
        builder="ResNet50",
        image_size=224,
        minimum_size=32,
        preprocessing=CAFFE,
        freeze_until="conv4_block6_out",
        imagenet_file="resnet50_weights",
        pyramid=("conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    ),
    "inception_v3": Backbone(
        builder="InceptionV3",
        image_size=299,
        minimum_size=75,
        preprocessing=TF,
        freeze_until="mixed5",
        imagenet_file="inception_v3_weights",
    ),
    "densenet121": Backbone(
        builder="DenseNet121",
        image_size=224,
        minimum_size=32,
        preprocessing=TORCH,
        freeze_until="pool4_pool",
        imagenet_file="densenet121_weights",
        pyramid=("conv3_block12_concat", "conv4_block24_concat", "relu"),
    ),
    "efficientnetv2b0": Backbone(
        builder="EfficientNetV2B0",
        image_size=224,
        minimum_size=32,
        preprocessing=NONE,
        freeze_until="block5e_add",
        imagenet_file="efficientnetv2-b0",
    ),
}


def get_backbone(name: str) -> Backbone:
    """Return the entry `name`; raises BadInputError naming the entries there are."""
    if name not in BACKBONES:
        raise BadInputError(
            f"backbone must be one of {sorted(BACKBONES)}; got {name!r}. "
            "Backbones are entries of src/busi_pipeline/models/backbones.py."
        )
    return BACKBONES[name]
