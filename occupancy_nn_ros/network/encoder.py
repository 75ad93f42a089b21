# SPDX-License-Identifier: Apache-2.0
"""Images to feature maps at strides 8 and 4, with weights shared by all cameras."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def norm(channels: int) -> nn.GroupNorm:
    """Group norm: the same in training and at run time however few images there are, and it evens out exposure."""
    return nn.GroupNorm(max(1, channels // 8), channels)


class ConvBlock(nn.Sequential):
    """3x3 convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            norm(outputs),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016), the identity where ``begins_as_shortcut`` until it has learned."""

    def __init__(self, channels: int, *, begins_as_shortcut: bool = False) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels)
        last = norm(channels)
        if begins_as_shortcut:
            nn.init.zeros_(last.weight)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), last)

    def forward(self, x: Tensor) -> Tensor:
        """(V, C, h, w) to the same shape."""
        return functional.relu(x + self.second(self.first(x)))


class Encoder(nn.Module):
    """A small residual network whose stride-8 output also carries stride-16 context.

    Args:
        widths: channels at strides 2, 4, 8 and 16.
        outputs: channels of the features.
        further: residual blocks at stride 16 beyond the usual two.
    """

    stride = 8

    def __init__(self, widths: Sequence[int], outputs: int, further: int = 0) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.stem = ConvBlock(3, w2, stride=2)
        self.stage4 = nn.Sequential(ConvBlock(w2, w4, stride=2), ResidualBlock(w4))
        self.stage8 = nn.Sequential(ConvBlock(w4, w8, stride=2), ResidualBlock(w8), ResidualBlock(w8))
        beyond = (ResidualBlock(w16, begins_as_shortcut=True) for _ in range(further))
        self.stage16 = nn.Sequential(ConvBlock(w8, w16, stride=2), ResidualBlock(w16), ResidualBlock(w16), *beyond)
        self.lateral8 = nn.Conv2d(w8, outputs, 1)
        self.lateral16 = nn.Conv2d(w16, outputs, 1)
        self.smooth = ConvBlock(outputs, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(V, 3, H, W) normalised images, H and W multiples of 16, to (V, widths[1], H/4, W/4) and (V, outputs, H/8, W/8)."""
        x4 = self.stage4(self.stem(images))
        x8 = self.stage8(x4)
        features: Tensor = self.smooth(self.lateral8(x8) + twice(self.lateral16(self.stage16(x8))))
        return x4, features


class DetailEncoder(nn.Module):
    """Details at stride 4 that know the features around them."""

    stride = 4

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.lateral4 = nn.Conv2d(inputs, outputs, 1)
        self.lateral8 = nn.Conv2d(features, outputs, 1)
        self.smooth = ConvBlock(outputs, outputs)

    def forward(self, x4: Tensor, features: Tensor) -> Tensor:
        """(V, inputs, 2h, 2w) and (V, features, h, w) to (V, outputs, 2h, 2w)."""
        details: Tensor = self.smooth(self.lateral4(x4) + twice(self.lateral8(features)))
        return details


def twice(x: Tensor) -> Tensor:
    """(V, C, h, w) to (V, C, 2h, 2w), linear between."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
