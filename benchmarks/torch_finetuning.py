"""The fine-tuning that PyTorch's users write, as a process of its own: the peer of benchmarks/finetuning.py.

    python torch_finetuning.py KIND WEIGHTS DATA

KIND: loop (frozen backbone in evaluation mode under no_grad, the head trained, every epoch from the
pictures), cached (features computed once), augmented (crop, flip and jitter anew in every epoch), blocks
(the last two blocks and the head), predict (one picture). WEIGHTS is a .npz with torchvision's names.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SIZE, EPOCHS, BATCH = 160, 10, 32
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Block(nn.Module):
    """An inverted residual of MobileNetV2."""

    def __init__(self, inside: int, outside: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(unit(inside, wide, 1))
        layers += [unit(wide, wide, 3, stride, wide), nn.Conv2d(wide, outside, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outside))
        self.residual = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def unit(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU6(inplace=True))


class MobileNetV2(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 32, 3, 2)]
        inside = 32
        for expand, outside, count, stride in [
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]:  # fmt: skip
            for i in range(count):
                layers.append(Block(inside, outside, stride if i == 0 else 1, expand))
                inside = outside
        self.features = nn.Sequential(*layers, unit(inside, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Pictures(Dataset):
    def __init__(self, root: Path, augment: bool) -> None:
        self.classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        self.samples = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((root / name).iterdir())
        ]
        self.augment = augment

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        picture = Image.open(path).convert("RGB")
        box = None
        if self.augment:
            w, h = picture.size
            area, ratio = random.uniform(0.5, 1) * w * h, random.uniform(3 / 4, 4 / 3)
            cw, ch = min(w, round((area * ratio) ** 0.5)), min(h, round((area / ratio) ** 0.5))
            left, top = random.randint(0, w - cw), random.randint(0, h - ch)
            box = (left, top, left + cw, top + ch)
        picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
        if self.augment:
            if random.random() < 0.5:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                picture = enhance(picture).enhance(random.uniform(0.8, 1.2))
        array = (np.asarray(picture, np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(array.transpose(2, 0, 1).copy()), label


def loaders(data: Path, augment: bool) -> tuple[DataLoader, DataLoader]:
    train, held = Pictures(data / "train", augment), Pictures(data / "val", False)
    return (
        DataLoader(train, BATCH, shuffle=True, num_workers=2),
        DataLoader(held, BATCH, num_workers=2),
    )


def pooled(model: MobileNetV2, x: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(model.features(x), 1).flatten(1)


def accuracy(model: nn.Module, batches: object) -> float:
    right = total = 0
    with torch.no_grad():
        for x, y in batches:  # type: ignore[attr-defined]
            right += int((model(x).argmax(1) == y).sum())
            total += len(y)
    return right / total


def main() -> None:
    kind, weights, data = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(2)
    torch.manual_seed(0)
    classes = 8
    model = MobileNetV2(1000)
    state = {k: torch.from_numpy(v) for k, v in np.load(weights).items()}
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict(counters | state)
    if kind == "predict":
        model.eval()
        sample = Pictures(data / "val", False)[0][0][None]
        with torch.inference_mode():
            print(int(model(sample).argmax()))
        return
    model.classifier[1] = nn.Linear(1280, classes)
    model.requires_grad_(False).eval()
    trained: list[nn.Module] = [model.classifier[1]]
    if kind == "blocks":
        trained += [*model.features[-3:]]  # two blocks and the last convolution
    parameters = [p.requires_grad_(True) for part in trained for p in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3 if kind != "blocks" else 3e-4)
    train, held = loaders(data, kind in ("augmented",))
    if kind == "cached":
        with torch.no_grad():
            known = [
                [(F.adaptive_avg_pool2d(model.features(x), 1).flatten(1), y) for x, y in part]
                for part in (train, held)
            ]
        head = model.classifier
        epochs: object = known[0]
    else:
        head, epochs = model, train
    for _ in range(EPOCHS):
        for x, y in epochs:  # type: ignore[attr-defined]
            if kind in ("loop", "augmented"):
                with torch.no_grad():
                    x = pooled(model, x)
                loss = F.cross_entropy(model.classifier(x), y)
            else:
                loss = F.cross_entropy(head(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"accuracy {accuracy(head, known[1] if kind == 'cached' else held):.3f}")


if __name__ == "__main__":
    main()
