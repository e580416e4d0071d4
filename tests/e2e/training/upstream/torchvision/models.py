"""One model, which costs nothing."""

from torch import nn


def tiny(pretrained=False):
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 1000))
