"""How fast the package is beside the plain way to do the same: `python benchmarks/run.py`.

Most lines are a ratio of two measurements taken in turn, in this process, on the same images and
weights, the median of three pairs. `--write` puts the table into benchmarks/README.md.
"""

import argparse
import copy
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import torchattacks
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from unlearnkit import attacks, fairness, models
from unlearnkit.data import ImageData, load, make_split
from unlearnkit.methods import unlearn

CLASSES, SIZE = 10, 32
SPLIT = {"forget": "random:0.1", "validation": 0.0, "seed": 0}
PAIRS = 3
RECIPE = {"lr": 0.01, "epochs": 1, "batch_size": 128, "crop": 4, "flip": True, "precision": "bf16"}


def made_data(train: int, test: int) -> ImageData:
    """Return images of noise: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (count, 3, SIZE, SIZE)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return images, torch.arange(count) % CLASSES

    return ImageData("noise", tuple(map(str, range(CLASSES))), *part(train), *part(test))


def resnet50(data: ImageData, stem_stride: int = 1) -> nn.Module:
    """Return a quarter-width ResNet-50 with the CIFAR stem."""
    sizes = {"num_classes": CLASSES, "image_size": SIZE, "mean": data.mean, "std": data.std}
    return models.build("resnet50", seed=0, width=0.25, stem_stride=stem_stride, **sizes)


def resnet18(data: ImageData) -> nn.Module:
    """Return a ResNet-18 with the CIFAR stem, as most unlearning papers use it."""
    net = torchvision.models.resnet18(num_classes=CLASSES)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return models.Classifier("resnet18", net, data.mean, data.std)


def ratio(ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, float, float]:
    """Return the median seconds of both and the median ratio ours / plain, after a warm-up."""
    pairs = [(_seconds(ours), _seconds(plain)) for _ in range(PAIRS + 1)][1:]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return a, b, statistics.median(x / y for x, y in pairs)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class PlainImages(Dataset):
    """PIL images, cropped and mirrored one by one, with their labels."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, mean: tuple, std: tuple) -> None:
        self.images = [Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images]
        self.labels = labels.tolist()
        steps = [transforms.RandomCrop(SIZE, padding=4), transforms.RandomHorizontalFlip()]
        steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def plain_rl(net: nn.Module, forget: Dataset, retain: Dataset) -> None:
    """Do one epoch of random labels as the published loops do, on a copy of `net`."""
    net = copy.deepcopy(net).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    for dataset, random in ((forget, True), (retain, False)):
        for images, labels in DataLoader(dataset, batch_size=128, shuffle=True):
            if random:
                labels = torch.randint(0, CLASSES, labels.shape)
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def rl_epochs() -> Iterator[tuple]:
    """Compare an epoch of RL with the plain loop, for two networks."""
    data = made_data(1280, 10)
    split = make_split(data, **SPLIT)
    parts = [
        PlainImages(data.train_images[index], data.train_labels[index], data.mean, data.std)
        for index in (split.forget, split.retain)
    ]
    for title, model in (("ResNet-50 ×¼", resnet50(data)), ("ResNet-18", resnet18(data))):
        ours = partial(unlearn, "rl", model, data, split, hyperparameters=RECIPE, seed=0)
        a, b, share = ratio(ours, partial(plain_rl, model.net, *parts))
        yield f"RL epoch, {title}, CIFAR stem: plain loop / ours", a, b, 1 / share, "≥ 3"


def epsilon_curve() -> Iterator[tuple]:
    """Compare an ε-curve of PGD-20 with a plain torchattacks loop on the same images.

    Ours leaves broken images alone, so the ratio depends on how accuracy falls along ε: it is said.
    """
    data = load("digits", size=SIZE)
    model, split = resnet50(data, stem_stride=2), make_split(data, **SPLIT)
    recipe = {**RECIPE, "epochs": 12, "crop": 0, "lr": 0.05}
    model = unlearn("cf", model, data, split, hyperparameters=recipe, seed=0).model.eval()
    images, labels = data.test_images, data.test_labels
    epsilons = [e / 255 for e in (2, 4, 8, 16, 32, 64)]
    floats = images.float() / 255

    how = {"batch_size": 256, "seed": 0}
    ours = partial(attacks.robust_curve, model, images, labels, "pgd", epsilons, **how)
    falls = ", ".join(f"{100 * row.float().mean():.0f}" for row in ours())

    def plain() -> None:
        for epsilon in epsilons:
            adversary = torchattacks.PGD(model, eps=epsilon, alpha=epsilon / 4, steps=20)
            for batch, truth in zip(floats.split(256), labels.split(256), strict=True):
                model(adversary(batch, truth)).argmax(1)

    a, b, share = ratio(ours, plain)
    what = f"ε-curve, 6 × PGD-20, accuracy {falls} %: ours / plain torchattacks"
    yield what, a, b, share, "≤ 0.33"


def sigma() -> Iterator[tuple]:
    """Compare σ of all layers and classes with a plain forward pass."""
    data = made_data(10, 1000)
    model = resnet50(data).eval()
    floats = data.test_images.float() / 255

    tested = (data.test_images, data.test_labels)
    ours = partial(fairness.class_sigma, model, *tested, num_classes=CLASSES, batch_size=250)

    @torch.no_grad()
    def plain() -> None:
        for batch in floats.split(250):
            model(batch)

    a, b, share = ratio(ours, plain)
    yield "σ of all layers and classes: ours / forward pass", a, b, share, "≤ 1.2"


def last_layers() -> Iterator[tuple]:
    """Compare CF on the last layers with CF on all: time and counted memory."""
    data = made_data(2560, 10)
    model, split = resnet50(data), make_split(data, **SPLIT)
    recipe = {**RECIPE, "crop": 0, "epochs": 3}
    made = {}

    def run(scope: str) -> None:
        made[scope] = unlearn("cf", model, data, split, hyperparameters=recipe, seed=0, scope=scope)

    a, b, share = ratio(partial(run, "last"), partial(run, "all"))
    yield "CF, last / all layers: seconds", a, b, share, "≤ 0.35"
    memory = made["last"].memory.total / made["all"].memory.total
    yield "CF, last / all layers: training memory", None, None, memory, "≤ 0.2"


def workers() -> Iterator[tuple]:
    """Compare computing the profile starter on digits with two workers and with one."""

    def compute(count: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = ["-m", "unlearnkit", "compute", "--profile", "starter", "--dataset", "digits"]
            return _command(*command, "--workers", str(count), UNLEARNKIT_STORE=folder)

    a, b = compute(2), compute(1)
    yield "profile starter: one worker / two", a, b, b / a, "≥ 1.8"


def reading() -> Iterator[tuple]:
    """Time importing `unlearnkit.report` and redrawing every committed study."""
    seconds = _command("-c", "import unlearnkit.report")
    yield "import unlearnkit.report (s)", seconds, None, None, "≤ 1.5"
    with tempfile.TemporaryDirectory() as folder:
        seconds = _command("-m", "unlearnkit", "report", UNLEARNKIT_OUTPUT=folder)
    yield "redrawing every committed study (s)", seconds, None, None, ""


def _command(*arguments: str, **environment: str) -> float:
    env = {**os.environ, **environment}
    command = [sys.executable, *arguments]
    return _seconds(
        partial(subprocess.run, command, check=True, env=env, stdout=subprocess.DEVNULL)
    )


PARTS = (rl_epochs, epsilon_curve, sigma, last_layers, workers, reading)


def processor() -> str:
    """Return what /proc/cpuinfo or the platform calls the processor, and what it multiplies in."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return ", ".join([name[1] if name else platform.processor(), *flags])


def main() -> None:
    """Run the parts named on the command line, or all; print the table, and write it if asked."""
    names = {part.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*names, []], help="default: all")
    parser.add_argument("--write", action="store_true", help="put the table into the README here")
    options = parser.parse_args()
    lines = ["| what | first (s) | second (s) | ratio | aim |"]
    lines += ["| :--- | ---: | ---: | ---: | :--- |"]
    print(*lines, sep="\n", flush=True)
    for part in [names[name] for name in options.parts] or PARTS:
        for what, *numbers, aim in part():
            shown = ["–" if number is None else f"{number:.2f}" for number in numbers]
            lines.append(f"| {what} | {' | '.join(shown)} | {aim} |")
            print(lines[-1], flush=True)
    if options.write:
        where = f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        lines += ["", f"Measured on {time.strftime('%Y-%m-%d')}: {where}."]
        path = Path(__file__).with_name("README.md")
        head = path.read_text().split("<!-- table -->")[0]
        path.write_text(f"{head}<!-- table -->\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
