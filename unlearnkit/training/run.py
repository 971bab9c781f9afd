"""The one training loop: trains a model from scratch, and is what every unlearning method runs on.

A `Run` holds the model, its optimiser and the data; a method is a few lines that ask it for
epochs, batches and steps, see `unlearnkit.methods`. All randomness is a function of (seed, purpose,
epoch). So a run that is interrupted resumes from its checkpoint, and ends at the same weights.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from unlearnkit.cost import MemoryCount, SavedBytes, has_bf16
from unlearnkit.data import ImageData
from unlearnkit.errors import UserError
from unlearnkit.metrics import accuracy, keep_pages, layout, predictions
from unlearnkit.scopes import set_train, trainable
from unlearnkit.seeding import derive, stream
from unlearnkit.training.batches import batch_sizes, cut
from unlearnkit.training.checkpoint import load_state, save_state
from unlearnkit.training.progress import progress_bar
from unlearnkit.training.recipe import Recipe

CHECKPOINT_SECONDS = 120.0
BAR = "{desc:<28.28} {percentage:3.0f}% |{bar:20}| {elapsed} < {remaining}{postfix}"


class TrainingDiverged(UserError):
    """A loss was not finite; the message names what ran, the epoch and the rate."""


class OutOfTime(Exception):
    """The deadline passed; the run has saved its state and resumes at the next call."""


@dataclass
class Run:
    """A model in training: optimiser, data, precision, progress and checkpoint."""

    model: nn.Module  # only what its scope leaves unfrozen is trained
    data: ImageData  # on the computing device
    retain_index: Tensor  # int64 [N], on the CPU, into data.train_images; so are the other two
    recipe: Recipe
    seed: int
    name: str
    forget_index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    validation_index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    original: nn.Module | None = None  # what is unlearned, frozen and in evaluation mode
    fresh: Callable[[], nn.Module] | None = None  # builds an untrained model
    options: Mapping[str, Any] = field(default_factory=dict)  # the method's, beyond the recipe's
    state_file: Path | None = None
    deadline: float | None = None
    on_epoch: Callable[[int, nn.Module], None] | None = None
    # what a method reports about itself, e.g. run.log["hit_ratio"] = 0.93
    log: dict[str, float] = field(default_factory=dict)
    # called around each optimiser step, with gradients in place
    before_step: list[Callable[[], None]] = field(default_factory=list)
    after_step: list[Callable[[], None]] = field(default_factory=list)
    consults_original: bool = False  # the original is counted in the memory
    earlier_seconds: float = 0.0  # what the training took before it was interrupted and resumed

    def __post_init__(self) -> None:
        self.model.to(memory_format=layout(self.model))
        how, size = self.recipe, self.data.image_size
        if how.crop > size:
            raise UserError(f"{self.name}: crop must be at most the image's {size}, not {how.crop}")
        sgd = partial(torch.optim.SGD, momentum=how.momentum)
        kinds = {"sgd": sgd, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        parameters = [parameter for _, parameter in trainable(self.model)]
        options = {"lr": how.lr, "weight_decay": how.weight_decay, "fused": True}
        self.optimizer = kinds[how.optimizer](parameters, **options)
        self.device = self.data.train_images.device
        self._began = time.perf_counter()
        self._epoch, self._fraction, self._seen = 0, 0.0, 0
        self._augment: torch.Generator | None = None
        self.activations, self._counted = 0, set()
        self._counter: SavedBytes | None = None
        self._bar = tqdm(disable=True)
        self._loss = torch.zeros((), device=self.device)  # running mean of the epoch's steps

    def epochs(self) -> Iterator[int]:
        """Yield the epochs still to do; between them save the state and watch the deadline."""
        keep_pages()
        start, end = load_state(self) if self.state_file else 0, self.recipe.epochs
        saved = time.monotonic()
        told = (os.environ.get(name, "") for name in ("UNLEARNKIT_WORKER", "TQDM_DISABLE"))
        quiet = any(value not in ("", "0") for value in told)
        shape = {"total": end, "initial": start, "bar_format": BAR, "leave": False}
        self._bar = progress_bar(quiet, desc=self.name, **shape)
        try:
            for epoch in range(start, end):
                self._epoch, self._seen, done = epoch, 0, epoch + 1
                torch.manual_seed(derive(self.seed, "dropout", epoch))
                self._augment = stream(self.seed, "augment", epoch)
                self._loss.zero_()
                set_train(self.model)
                yield epoch
                self._check_finite()
                self._bar.update(done - self._bar.n)
                if self.on_epoch is not None:
                    self.on_epoch(done, self.model)
                late = self.deadline is not None and time.time() > self.deadline
                if done < end and (late or time.monotonic() - saved > CHECKPOINT_SECONDS):
                    if self.state_file:
                        save_state(self, done)
                    saved = time.monotonic()
                    if late:
                        raise OutOfTime(f"{self.name}: stopped after epoch {done}")
        finally:
            self._stop_counting()
            self._bar.close()
        if self.state_file:
            self.state_file.unlink(missing_ok=True)

    def retain(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of one shuffled, augmented pass over the retain set."""
        yield from map(self.batch, self.order(self.retain_index, "retain", epoch))

    def forget(self, epoch: int, batch_size: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of one shuffled, augmented pass over the forget set."""
        yield from map(self.batch, self.order(self.forget_index, "forget", epoch, batch_size))

    def order(
        self, index: Tensor, purpose: str, epoch: int, batch_size: int = 0
    ) -> Iterator[Tensor]:
        """Yield the shuffled `index` in batches, counting the first one's memory."""
        generator = stream(self.seed, "order", purpose, epoch)
        shuffled = index[torch.randperm(len(index), generator=generator)]
        batches = shuffled.split(batch_sizes(len(index), batch_size or self.recipe.batch_size))
        self._augment = stream(self.seed, "augment", purpose, epoch)
        for number, batch in enumerate(batches):
            self._fraction = number / len(batches)
            if purpose not in self._counted:
                self._counted.add(purpose)
                self._stop_counting()
                self._counter = SavedBytes(self.model).__enter__()
            yield batch
            self._seen += len(batch)
            bar, images = self._bar, len(self.retain_index) + len(self.forget_index)
            if not bar.disable and time.time() - bar.last_print_t >= bar.mininterval:
                bar.set_postfix_str(f"loss {self._loss:.3f}", refresh=False)
                bar.update(epoch + min(1.0, self._seen / images) - bar.n)

    def batch(self, index: Tensor, *, augment: bool = True) -> tuple[Tensor, Tensor]:
        """Return the images [B, 3, H, W] in [0, 1] and the labels [B] of `index`.

        Cropped and mirrored as the recipe says, inside `order`; exact pixels without `augment`.
        """
        how, generator = self.recipe, self._augment if augment else None
        flip = how.flip and self.data.flip
        images = cut(self.data.train_images, index, crop=how.crop, flip=flip, generator=generator)
        return images, self.data.train_labels[index.to(self.device)]

    def logits(self, images: Tensor) -> Tensor:
        """Return the model's logits [B, C] in float32, computed in the recipe's precision."""
        return self._forward(self.model, images)

    def original_logits(self, images: Tensor) -> Tensor:
        """Return the frozen original's logits [B, C], without a gradient."""
        self.consults_original = True
        with torch.no_grad():
            return self._forward(self.original, images)

    def cross_entropy(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch."""
        return F.cross_entropy(self.logits(images), labels)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Return the gradient of each trained parameter by name; 0 where the loss does not reach.

        No step is done, and no parameter's `grad` is touched.
        """
        self._stop_counting()
        names, parameters = zip(*trainable(self.model), strict=True)
        how = {"allow_unused": True, "materialize_grads": True}
        return dict(zip(names, torch.autograd.grad(loss, parameters, **how), strict=True))

    def step(self, loss: Tensor) -> None:
        """Do one optimiser step down `loss` at the schedule's rate."""
        self._stop_counting()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        (group,) = self.optimizer.param_groups
        group["lr"] = self.recipe.rate((self._epoch + self._fraction) / self.recipe.epochs)
        for function in self.before_step:
            function()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(group["params"], self.recipe.clip)
        self.optimizer.step()
        for function in self.after_step:
            function()
        self._loss.lerp_(loss.detach().float(), 0.1)

    @property
    def seconds(self) -> float:
        """Seconds since the run began, with those of before it was interrupted and resumed."""
        return self.earlier_seconds + time.perf_counter() - self._began

    def tell(self) -> None:
        """Put one line in the place of the bar, if it was shown: epochs, accuracy, seconds.

        The accuracy is that on at most 1000 test images, of classes that were trained on.
        """
        if not hasattr(self._bar, "sp"):  # as tqdm prints, where it does
            return
        seconds, data, many = self.seconds, self.data, self.recipe.epochs
        taught = data.train_labels[self.retain_index.to(self.device)]
        known = torch.isin(data.test_labels, taught).nonzero().flatten()
        order = torch.randperm(len(known), generator=stream(0, "progress"))
        index = known[order[:1000].to(self.device)]
        logits = predictions(self.model, data.test_images[index], batch_size=self.recipe.batch_size)
        right = accuracy(logits.argmax(1) == data.test_labels[index].cpu())
        done = f"{many} epoch{'s' * (many != 1)}, {right:.1f} % test accuracy, {seconds:.1f} s"
        self._bar.sp(f"{self.name}: {done}")
        self._bar.fp.write("\n")

    def memory(self) -> MemoryCount:
        """Return the training memory: the largest of the passes, counted on their first batches."""
        models = [self.model, self.original] if self.consults_original else [self.model]
        parameters = sum(p.nbytes for model in models for p in model.parameters())
        gradients = sum(parameter.nbytes for _, parameter in trainable(self.model))
        state = [value for entry in self.optimizer.state.values() for value in entry.values()]
        optimizer = sum(value.nbytes for value in state if torch.is_tensor(value))
        return MemoryCount(parameters, gradients, optimizer, self.activations)

    def _forward(self, model: nn.Module, images: Tensor) -> Tensor:
        bf16 = self.recipe.precision == "bf16" and has_bf16(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return model(images).float()

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.activations = max(self.activations, self._counter.total)
            self._counter = None

    def _check_finite(self) -> None:
        state = (self._loss, *self.model.parameters(), *self.model.buffers())
        finite = torch.stack([value.isfinite().all() for value in state])
        if not finite.all():
            what = "weights are" if finite[0] else "loss is"
            raise TrainingDiverged(
                f"{self.name}: the {what} not finite in epoch {self._epoch + 1} "
                f"at a rate of {self.recipe.lr:g}; try a smaller rate"
            )


def train(
    model: nn.Module,
    data: ImageData,
    index: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    name: str = "original",
    loss: Callable[[Run, Tensor, Tensor], Tensor] | None = None,
    on_epoch: Callable[[int, nn.Module], None] | None = None,
    state_file: Path | None = None,
    deadline: float | None = None,
) -> Run:
    """Train `model` in place on the training images `index`, and return the finished run.

    The model takes float images [B, 3, H, W] in [0, 1] to logits [B, C], on the data's device.
    `index` is an int64 tensor [N] into `data.train_images`. `loss` is a function of (run, images,
    labels) to minimise, by default the cross-entropy. `on_epoch` is called with (epochs done,
    model) after each epoch. `state_file`, `deadline` and errors are as for `methods.unlearn`.
    """
    kept = {"on_epoch": on_epoch, "state_file": state_file, "deadline": deadline}
    with torch.random.fork_rng():
        run = Run(model, data, index, recipe, seed, name, **kept)
        for epoch in run.epochs():
            for images, labels in run.retain(epoch):
                run.step((loss or Run.cross_entropy)(run, images, labels))
    model.eval()
    run.tell()
    return run
