"""Pictures in: folders, decoding, transforms and batches.

    data = open_dataset("flowers")  # a folder, CSV, COCO, YOLO or .npz
    preprocessing = Preprocessing.named("imagenet", 224)
    loader = Loader(data.train, preprocessing.training(), batch_size=32, shuffle=True)
    for images, labels, indices in loader.epoch(0): ...

Pillow is imported when the first picture is decoded or resized, not before.
"""

from nnlite.data.appearance import GaussianBlur, Grey, RandAugment, RandomErasing
from nnlite.data.cache import PictureCache
from nnlite.data.check import Finding, check_data
from nnlite.data.colour import ColorJitter
from nnlite.data.dataset import Dataset, Sample
from nnlite.data.decode import decode
from nnlite.data.folder import ImageFolder
from nnlite.data.geometric import Affine, Perspective, Rotation, VerticalFlip
from nnlite.data.loader import Batch, Loader, Skipped
from nnlite.data.mixing import cutmix, mixup
from nnlite.data.open import open_dataset
from nnlite.data.preprocess import FAMILIES, Preprocessing
from nnlite.data.random import generator
from nnlite.data.sheet import contact_sheet, save_picture
from nnlite.data.transforms import (
    CenterCrop,
    Compose,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
    Resize,
    ResizeToCover,
    ToFloat,
    Transform,
    center_crop,
    resize,
)

__all__ = [
    "FAMILIES",
    "Affine",
    "Batch",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "Dataset",
    "Finding",
    "GaussianBlur",
    "Grey",
    "HorizontalFlip",
    "ImageFolder",
    "Loader",
    "Normalize",
    "Perspective",
    "PictureCache",
    "Preprocessing",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "Resize",
    "ResizeToCover",
    "Rotation",
    "Sample",
    "Skipped",
    "ToFloat",
    "Transform",
    "VerticalFlip",
    "center_crop",
    "check_data",
    "contact_sheet",
    "cutmix",
    "decode",
    "generator",
    "mixup",
    "open_dataset",
    "resize",
    "save_picture",
]
