"""Training as the documentation tells it, step by step in plain PyTorch: what ``crispseg.train`` is held against.

Here are the order of the samples, the losses, the gradient's clipping, the learning rate, AdamW and the moving average,
each written out as its formula. Nothing of ``crispseg.training`` or ``crispseg.losses`` is used. The network is the
run's own (``crispseg.runs.make_model``), augmentation that of ``crispseg.data``, whose tests are in ``tests/data``.
"""

import dataclasses
import math

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from crispseg.data import train_transform
from crispseg.runs import make_model

CLASSES, VOID = 3, 3


@dataclasses.dataclass
class ByHand:
    """What a training leaves: weights and buffers, their average, the learning rate and the loss of each step."""

    model: dict
    average: dict | None
    rates: list
    losses: list


def train_by_hand(config, pictures):
    """Train what ``config`` describes on pictures (uint8 image, label) and return all of it."""
    t = config.training
    steps = math.ceil(t.epochs * len(pictures) / t.batch_size)
    weights = weights_of_classes(t.class_weights, [label for _, label in pictures])
    torch.manual_seed(config.seed)
    model = make_model(config, CLASSES).train().to(memory_format=torch.channels_last)  # bf16 rounds by the layout
    optimizer, average, rates, losses = AdamW(), None, [], []
    for step in range(steps):
        images, target = batch(config, pictures, step)
        torch.manual_seed(seed_of(config.seed, step))  # dropout
        images = images.bfloat16() if t.precision == "bf16" else images  # Lightning's autocast begins at the input
        with torch.autocast("cpu", torch.bfloat16, enabled=t.precision == "bf16"):
            logits, others = model(images.contiguous(memory_format=torch.channels_last), aux=True)
        loss = total_loss(logits.float(), target, weights, t)
        loss = loss + t.aux_weight * sum(total_loss(other.float(), target, weights, t) for other in others)
        model.zero_grad()
        loss.backward()
        clip([p for p in model.parameters() if p.grad is not None], t.clip)
        rate = learning_rate(step, steps, t)
        for name, p in model.named_parameters():
            optimizer.update(name, p, rate * factor(name, t), t.weight_decay if p.ndim > 1 else 0.0)
        average = moving_average(average, model.state_dict(), step, t.ema) if t.ema else None
        rates.append(rate)
        losses.append(loss.item())
    return ByHand(model.state_dict(), average, rates, losses)


def read_pictures(root, split):
    """Images (3, H, W) and labels (H, W) of a split by name, uint8."""
    pictures = []
    for path in sorted((root / "images" / split).iterdir()):
        with Image.open(path) as image, Image.open(root / "labels" / split / path.name) as label:
            pixels, classes = np.array(image), np.array(label)
        pictures.append((torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), torch.from_numpy(classes)))
    return pictures


def batch(config, pictures, step):
    """The images, in [0, 1], and the labels of a step: one permutation after another, cut into batches."""
    d, n, size = config.data, len(pictures), config.training.batch_size
    options = {"scale": d.scale, "flip": d.flip, "jitter": d.jitter, "max_share": d.max_share, "ignore_index": VOID}
    images, labels = [], []
    for position in range(step * size, (step + 1) * size):
        order = np.random.default_rng([config.seed, position // n]).permutation(n)
        image, label = pictures[order[position % n]]
        torch.manual_seed(seed_of(config.seed, position))
        image, label = train_transform(d.crop, **options)(tv_tensors.Image(image), tv_tensors.Mask(label))
        images.append(torch.Tensor(image) / 255)
        labels.append(torch.Tensor(label).long())
    return torch.stack(images), torch.stack(labels)


def seed_of(seed, position):
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0])


def learning_rate(step, steps, t):
    """A linear rise over the share ``warmup`` of the steps, then the rest of the schedule."""
    rise = round(t.warmup * steps)
    if step < rise:
        return t.lr * (step + 1) / rise
    x = (step - rise) / (steps - rise)
    return t.lr * {"cosine": 0.5 + 0.5 * math.cos(math.pi * x), "poly": (1 - x) ** 0.9, "constant": 1.0}[t.schedule]


def factor(name, t):
    """The factor on the learning rate of a parameter: the encoder's, the neck's, or none."""
    if ".sdn." in name or name.startswith("neck."):
        return t.neck_lr
    return t.encoder_lr if name.removeprefix("net.").startswith("encoder.") else 1.0


def weights_of_classes(kind, labels):
    """The weight of each class: given, or 1/√f or median(f)/f of its share f of the labelled pixels, with mean 1."""
    if isinstance(kind, tuple):
        return torch.tensor(kind)
    if kind == "none":
        return torch.ones(CLASSES)
    f = torch.tensor([float(sum((label == c).sum() for label in labels)) for c in range(CLASSES)])
    f = f / f.sum()
    raw = {"inverse_sqrt": 1 / f.sqrt(), "median_frequency": f.sort().values[(CLASSES - 1) // 2] / f}[kind]
    return raw / raw.mean()


def total_loss(logits, target, weights, t):
    """The sum of the losses, each by its weight; class weights and hard pixels are the cross-entropy's alone."""
    total = 0.0
    if "cross_entropy" in t.losses:
        total = t.losses["cross_entropy"] * pixel_loss(logits, target, weights, t.loss)
    if "focal" in t.losses:
        z, labels = logits.permute(0, 2, 3, 1)[target != VOID], target[target != VOID]
        q = z.softmax(1).gather(1, labels[:, None])
        total = total + t.losses["focal"] * (-((1 - q) ** 2) * q.log()).mean()
    return total


def pixel_loss(logits, target, weights, kind):
    """Σ w·(−log p) / Σ w over the labelled pixels; ``ohem``: over those of p < 0.7, the hardest 1/16 at least."""
    z, t = logits.permute(0, 2, 3, 1)[target != VOID], target[target != VOID]
    loss, w = z.logsumexp(1) - z.gather(1, t[:, None])[:, 0], weights[t]
    if kind == "ohem":
        hardest = loss.detach().sort(descending=True).values[max(1, len(loss) // 16) - 1]
        hard = (loss > -math.log(0.7)) | (loss >= hardest)
        loss, w = loss[hard], w[hard]
    return (w * loss).sum() / w.sum()


def clip(parameters, largest):
    """Scale all gradients so that their common norm is ``largest`` at most."""
    norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in parameters))
    for p in parameters:
        p.grad *= min(1.0, largest / (norm + 1e-6))


class AdamW:
    """Loshchilov and Hutter, ICLR 2019, with PyTorch's constants."""

    def __init__(self):
        self.state = {}

    @torch.no_grad()
    def update(self, name, p, rate, decay):
        if p.grad is None:
            return
        m, v, n = self.state.get(name, (torch.zeros_like(p), torch.zeros_like(p), 0))
        m, v, n = 0.9 * m + 0.1 * p.grad, 0.999 * v + 0.001 * p.grad**2, n + 1
        self.state[name] = m, v, n
        p.mul_(1 - rate * decay)
        p.sub_(rate * (m / (1 - 0.9**n)) / ((v / (1 - 0.999**n)).sqrt() + 1e-8))


def moving_average(average, state, n, decay):
    """The average of weights and buffers after n updates and one more; whole numbers are copied."""
    if average is None:
        return {name: value.clone() for name, value in state.items()}
    d = min(decay, (1 + n) / (10 + n))
    return {
        name: d * average[name] + (1 - d) * value if value.is_floating_point() else value.clone()
        for name, value in state.items()
    }
