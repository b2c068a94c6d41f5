"""Times one step of the networks of scripts/bench.lua in PyTorch and prints a line of JSON.

    python3 scripts/peers/torch_bench.py --model resnet20 --mode train --threads 2 --layout nhwc

A step is what it is there: forward, or forward, loss, backward and SGD with momentum; two steps to
warm up, then the median of all in the given time, at least three. scripts/compare.lua runs both in
turn.
"""

import argparse
import json
import resource
import time

import torch
import torchvision
from torch import nn
from torch.nn import functional


def conv_norm(in_channels, out_channels, kernel, stride=1, bias=False):
    """A convolution that keeps the size (but for its stride), and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias),
        nn.BatchNorm2d(out_channels),
    )


class SubsampledShortcut(nn.Module):
    """He et al. 2015, option A: every second pixel, zeros for the channels that are missing."""

    def __init__(self, missing):
        super().__init__()
        self.padding = (0, 0, 0, 0, missing // 2, missing - missing // 2)

    def forward(self, x):
        return functional.pad(x[:, :, ::2, ::2], self.padding)


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))"""

    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


class SumOfPaths(nn.Module):
    def __init__(self, paths):
        super().__init__()
        self.paths = nn.ModuleList(paths)

    def forward(self, x):
        total = self.paths[0](x)
        for path in self.paths[1:]:
            total = total + path(x)
        return total


def classifier(channels, classes=10):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def activated(*layers):
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def two_convolutions(in_channels, out_channels, stride=1, bias=False):
    return nn.Sequential(
        activated(conv_norm(in_channels, out_channels, 3, stride, bias)),
        conv_norm(out_channels, out_channels, 3, 1, bias),
    )


def cifar_resnet(depth, width=16):
    layers, channels = [activated(conv_norm(3, width, 3))], width
    for stage in range(3):
        out = width << stage
        for unit in range((depth - 2) // 6):
            halves = stage > 0 and unit == 0
            shortcut = SubsampledShortcut(out - channels) if halves else nn.Identity()
            body = two_convolutions(channels, out, 2 if halves else 1)
            layers.append(Residual(body, shortcut))
            channels = out
    return nn.Sequential(*layers, *classifier(channels))


def tutorial_resnet():
    layers = [activated(conv_norm(3, 64, 7, 2, bias=True)), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for out in (64, 64, 128, 128, 256, 256, 512, 512):
        layers.append(Residual(two_convolutions(channels, out, bias=True),
                               conv_norm(channels, out, 1, bias=True)))
        channels = out
    return nn.Sequential(*layers, *classifier(channels))


def tutorial_resnext(filters=64, cardinality=8):
    paths = [activated(conv_norm(3, filters, 3, bias=True)) for _ in range(cardinality)]
    merge = activated(conv_norm(filters, filters, 1, bias=True))
    block = Residual(nn.Sequential(SumOfPaths(paths), merge), conv_norm(3, filters, 1, bias=True))
    return nn.Sequential(block, *classifier(filters))


# By name: how it is made, the usual batch, the side of its images.
NETWORKS = {
    "resnet20": (lambda: cifar_resnet(20), 128, 32),
    "resnet56": (lambda: cifar_resnet(56), 128, 32),
    "cifar14-w64": (lambda: cifar_resnet(14, 64), 64, 32),
    "tutorial-resnet": (tutorial_resnet, 2, 224),
    "tutorial-resnext": (tutorial_resnext, 32, 32),
    "resnet18": (torchvision.models.resnet18, 16, 224),
    "resnet50": (torchvision.models.resnet50, 8, 224),
    "resnext50": (torchvision.models.resnext50_32x4d, 8, 224),
    "vgg16": (torchvision.models.vgg16, 4, 224),
}


def make_step(model, mode, images, labels):
    """A function that runs one step."""
    if mode == "infer":
        model.eval()

        def infer():
            with torch.inference_mode():
                model(images)

        return infer
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def train():
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return train


def seconds_of_steps(step, seconds):
    for _ in range(2):
        step()
    taken, start = [], time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        taken.append(time.perf_counter() - before)
    return sorted(taken)


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=NETWORKS, default="resnet20")
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--layout", choices=["nchw", "nhwc"], default="nchw",
                        help="how images lie in memory (PyTorch: contiguous, channels_last)")
    return parser.parse_args()


def main():
    given = read_arguments()
    torch.set_num_threads(given.threads)
    make, usual_batch, side = NETWORKS[given.model]
    batch = given.batch or usual_batch
    layout = torch.channels_last if given.layout == "nhwc" else torch.contiguous_format
    model = make().to(memory_format=layout)
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=layout)
    labels = torch.arange(batch) % 10
    taken = seconds_of_steps(make_step(model, given.mode, images, labels), given.seconds)
    median = taken[len(taken) // 2]
    print(json.dumps({
        "engine": "torch " + torch.__version__.split("+")[0].replace("a0", ""),
        "model": given.model, "mode": given.mode, "batch": batch, "threads": given.threads,
        "layout": given.layout,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "median_ms": round(median * 1e3, 2), "min_ms": round(taken[0] * 1e3, 2),
        "images_per_s": round(batch / median, 2), "steps": len(taken),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }))


if __name__ == "__main__":
    main()
