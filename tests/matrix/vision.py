"""Networks of images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from tests.matrix.row import BY_PARTS, Row
from tests.matrix.training import CLASSES, images, steps


def _torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    return getattr(models, name)(**{"weights": None, "num_classes": CLASSES, **options})


def _vgg() -> nn.Module:
    from torchvision.models.vgg import cfgs, make_layers

    # The class itself makes a classifier of a hundred million weights.
    narrow = [size if size == "M" else size // 8 for size in cfgs["A"]]
    layers = make_layers(narrow, batch_norm=True)
    return nn.Sequential(layers, nn.Flatten(), nn.Linear(narrow[-2], CLASSES))


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(4, (2, 2, 2), 8, num_classes=CLASSES)


def _efficientnet() -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    settings = [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(4, 3, 2, 8, 16, 2)]
    return EfficientNet(settings, dropout=0.2, num_classes=CLASSES, last_channel=32)


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=CLASSES)


def _swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=CLASSES)


def _fcn() -> nn.Module:
    from torchvision.models import ResNet
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.resnet import BasicBlock
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    backbone = ResNet(BasicBlock, [1, 1, 1, 1])
    body = IntermediateLayerGetter(backbone, {"layer3": "aux", "layer4": "out"})
    return FCN(body, FCNHead(512, CLASSES), FCNHead(256, CLASSES))


def _maps(batch: int = 2, size: int = 32) -> Any:
    def draw() -> Any:
        y = torch.randint(0, CLASSES, (batch, size, size))
        return (torch.randn(batch, 3, size, size),), {}, y

    return draw


def _auxiliary(out: Any, y: Tensor) -> Tensor:
    heads = (out.logits, out.aux_logits1, out.aux_logits2)
    return sum((F.cross_entropy(head, y) for head in heads), torch.tensor(0.0))


def _segmentation(out: dict[str, Tensor], y: Tensor) -> Tensor:
    return F.cross_entropy(out["out"], y) + 0.5 * F.cross_entropy(out["aux"], y)


class Detector(nn.Module):
    """Returns losses in training and boxes in evaluation, as torchvision's detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.neck = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
        self.boxes, self.scores = nn.Linear(8, 4), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        x = self.neck(self.body(x)).mean((2, 3))
        boxes, scores = self.boxes(x), self.scores(x)
        if not self.training:
            return [
                {"boxes": b, "scores": s.softmax(0)} for b, s in zip(boxes, scores, strict=True)
            ]
        return {"boxes": boxes.square().mean(), "scores": F.cross_entropy(scores, y)}


def _detections() -> Any:
    (x,), _, y = images()()
    return (x, y), {}, None


def _convnext() -> nn.Module:
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(
        num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), drop_path_rate=0.1
    )


def _mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=CLASSES, img_size=32, patch_size=16, num_blocks=2, embed_dim=16)


def _hf_vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=16, num_labels=CLASSES,
    )  # fmt: skip
    return ViTForImageClassification(config)


def _logits(out: Any, y: Tensor) -> Tensor:
    return F.cross_entropy(out.logits, y)


ROWS = [
    Row(
        "torchvision `resnet18`",
        steps(partial(_torchvision, "resnet18"), images()),
        slow=True,
    ),
    Row(
        "torchvision `vgg11_bn`",
        steps(_vgg, images()),
        "an eighth of the width, a classifier of one layer",
    ),
    Row("torchvision `DenseNet`", steps(_densenet, images()), slow=True),
    Row(
        "torchvision `mobilenet_v3_small`",
        steps(partial(_torchvision, "mobilenet_v3_small", width_mult=0.25), images()),
        slow=True,
    ),
    Row("torchvision `EfficientNet`", steps(_efficientnet, images()), slow=True),
    Row("torchvision `VisionTransformer`", steps(_vit, images())),
    Row("torchvision `SwinTransformer`", steps(_swin, images()), slow=True),
    Row(
        "torchvision `googlenet`",
        steps(partial(_torchvision, "googlenet", init_weights=False), images(64, 2), _auxiliary),
        "auxiliary heads, which run in training alone",
        expected=BY_PARTS,
        slow=True,
    ),
    Row(
        "torchvision `FCN`",
        steps(_fcn, _maps(), _segmentation),
        "an auxiliary head; the network returns a dict",
        expected=BY_PARTS,
        slow=True,
    ),
    Row(
        "detector",
        steps(Detector, _detections, lambda out, _: sum(out.values())),
        "returns losses in training and boxes in evaluation",
        expected=BY_PARTS,
    ),
    Row("timm `ConvNeXt`", steps(_convnext, images()), needs=("timm",)),
    Row("timm `MlpMixer`", steps(_mixer, images()), needs=("timm",)),
    Row(
        "transformers ViT",
        steps(_hf_vit, images(), _logits),
        needs=("transformers",),
    ),
]
