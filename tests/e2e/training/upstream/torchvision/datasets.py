"""Made-up images, by the names of the real ones; as many for each class, so that none is absent."""

from typing import ClassVar

import torch

SIZE = 40
"""Images in each."""


class FakeData(torch.utils.data.Dataset):
    def __init__(self, size=SIZE, image_size=(3, 224, 224), num_classes=10, transform=None):
        self.classes = num_classes
        self.images = torch.rand(min(size, SIZE), *image_size, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % self.classes


class CIFAR10(FakeData):
    def __init__(self, root, train=True, download=False, transform=None):
        super().__init__(image_size=(3, 32, 32))


class MNIST(FakeData):
    mirrors: ClassVar[list] = []

    def __init__(self, root, train=True, download=False, transform=None):
        super().__init__(image_size=(1, 28, 28))
