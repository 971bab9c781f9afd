"""The one training loop: trains a model from scratch, and is what every unlearning method runs on.

A `Run` holds the model, its optimiser and the data; a method is a few lines that ask it for
epochs, batches and steps:

    for epoch in run.epochs():
        for images, labels in run.retain(epoch):
            run.step(run.cross_entropy(images, labels))

All randomness is a function of (seed, purpose, epoch), so a run that is cut off goes on from its
checkpoint and ends at the same weights as one that was not.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnkit.data import ImageData
from unlearnkit.errors import UserError
from unlearnkit.metrics import MemoryCount, SavedBytes, prefers_channels_last
from unlearnkit.scopes import set_train, trainable
from unlearnkit.seeding import derive, stream
from unlearnkit.training import checkpoint
from unlearnkit.training.batches import batch_sizes, cut, has_bf16, keep_pages
from unlearnkit.training.progress import epoch_bar, show
from unlearnkit.training.recipe import Recipe

CHECKPOINT_SECONDS = 120.0
COMPILED_STEPS = 5000  # fewer do not earn back a GPU's minute of compiling


class TrainingDiverged(UserError):
    """A loss was not finite; the message names what ran, the epoch and the rate."""


class OutOfTime(Exception):
    """The deadline passed; the run has saved its state and goes on at the next call."""


@dataclass
class Run:
    """A model in training: optimiser, data, precision, progress and checkpoint.

    Attributes
    ----------
    model : nn.Module
        What is trained; only what its scope leaves unfrozen.
    original : nn.Module or None
        The model that is unlearned, frozen and in evaluation mode (an unlearning method's only).
    images, labels : uint8 [N, 3, H, W] and int64 [N] tensors on the computing device
    retain_index, forget_index : int64 tensors [*], on the CPU
    options : mapping
        The hyper-parameters of the method beyond the recipe's.
    log : dict
        What a method reports about itself, e.g. `run.log["hit_ratio"] = 0.93`.
    before_step, after_step : lists of functions without arguments
        Called around each optimiser step, with gradients in place.
    earlier_seconds : float
        What this training took before it was cut off and resumed.
    compiled : bool or None
        Train through `torch.compile`; None for a long training on a GPU alone, since on CPUs the
        compiled step is no faster.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    retain_index: Tensor
    recipe: Recipe
    seed: int
    num_classes: int
    name: str
    scope: str = "all"
    forget_index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    original: nn.Module | None = None
    fresh: Callable[[], nn.Module] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    log: dict[str, float] = field(default_factory=dict)
    state_file: Path | None = None
    deadline: float | None = None
    on_epoch: Callable[[int, nn.Module], None] | None = None
    before_step: list[Callable[[], None]] = field(default_factory=list)
    after_step: list[Callable[[], None]] = field(default_factory=list)
    earlier_seconds: float = 0.0
    compiled: bool | None = None

    def __post_init__(self) -> None:
        if prefers_channels_last(self.model):
            self.model.to(memory_format=torch.channels_last)
        self.optimizer = self._optimizer()
        self._forward = self._compile() if self._is_compiled() else self.model
        self.activations = 0
        self._counted: set[str] = set()
        self._uses_original = False
        self._epoch, self._fraction = 0, 0.0
        self._counter: SavedBytes | None = None
        self._tally = torch.zeros(3, device=self.device)
        self._bar: Any = None
        self._began = time.perf_counter()
        self._seen, self._expected = 0, len(self.retain_index) + len(self.forget_index)

    @property
    def device(self) -> torch.device:
        return self.images.device

    # -- what a method asks for ------------------------------------------------------------------

    def epochs(self) -> Iterator[int]:
        """Yield the epochs still to do; between them save the state and watch the deadline."""
        keep_pages()
        start = self._restore()
        saved = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop_counting)
            self._bar = stack.enter_context(epoch_bar(self.name, self.recipe.epochs, start))
            for epoch in range(start, self.recipe.epochs):
                self._epoch = epoch
                torch.manual_seed(derive(self.seed, "dropout", self._epoch))
                self._augment = stream(self.seed, "augment", self._epoch)
                self._tally.zero_()
                set_train(self.model)
                yield self._epoch
                self._check_finite()
                self._seen, self._expected = 0, self._seen or self._expected
                if self.on_epoch is not None:
                    self.on_epoch(self._epoch + 1, self.model)
                done = self._epoch + 1
                late = self.deadline is not None and time.time() > self.deadline
                if done < self.recipe.epochs and (
                    late or time.monotonic() - saved > CHECKPOINT_SECONDS
                ):
                    self._save(done)
                    saved = time.monotonic()
                    if late:
                        raise OutOfTime(f"{self.name}: stopped after epoch {done}")
        if self.state_file is not None:
            self.state_file.unlink(missing_ok=True)

    def retain(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of one shuffled, augmented pass over the retain set."""
        for index in self.order(self.retain_index, "retain", epoch):
            yield self.batch(index)

    def forget(self, epoch: int, batch_size: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of one shuffled, augmented pass over the forget set."""
        for index in self.order(self.forget_index, "forget", epoch, batch_size):
            yield self.batch(index)

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
                self._counter = SavedBytes(self.model)
                self._counter.__enter__()
            yield batch
            if self._bar is not None:
                self._show(len(batch))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the augmented images [B, 3, H, W] in [0, 1] and the labels [B] of `index`."""
        recipe = self.recipe
        images = cut(
            self.images, index, crop=recipe.crop, flip=recipe.flip, generator=self._augment
        )
        return images, self.labels[index.to(self.device)]

    def logits(self, images: Tensor) -> Tensor:
        """Return the model's logits [B, C] in float32, computed in the recipe's precision."""
        # What is saved for the backward pass is counted on the model as it is written.
        forward = self._forward if self._counter is None else self.model
        if forward is not self.model:
            # Batches come in two sizes (see `batch_sizes`): compiled once for both.
            torch._dynamo.maybe_mark_dynamic(images, 0)
        with self.autocast():
            return forward(images).float()

    def original_logits(self, images: Tensor) -> Tensor:
        """Return the frozen original's logits [B, C], without a gradient."""
        assert self.original is not None, "only an unlearning run has an original"
        self._uses_original = True
        with torch.no_grad(), self.autocast():
            return self.original(images).float()

    def cross_entropy(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch, and count its hits for the progress bar."""
        logits = self.logits(images)
        self._tally[1] += (logits.detach().argmax(1) == labels).sum()
        self._tally[2] += len(labels)
        return F.cross_entropy(logits, labels)

    def step(self, loss: Tensor) -> None:
        """Do one optimiser step down `loss` at the schedule's rate."""
        self._stop_counting()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        rate = self.recipe.rate((self._epoch + self._fraction) / self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for function in self.before_step:
            function()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_([p for _, p in trainable(self.model)], self.recipe.clip)
        self.optimizer.step()
        for function in self.after_step:
            function()
        self._tally[0] += loss.detach() - self._tally[0] * 0.1

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context in which the recipe's precision holds."""
        on = self.recipe.precision == "bf16" and has_bf16(self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def memory(self) -> MemoryCount:
        """Return the training memory: the largest of the passes, counted on their first batches.

        A frozen original that the training itself consults counts among the parameters.
        """
        sizes = [p.numel() * p.element_size() for p in self.model.parameters()]
        learnt = [p.numel() * p.element_size() for _, p in trainable(self.model)]
        state = [
            value.numel() * value.element_size()
            for entry in self.optimizer.state.values()
            for value in entry.values()
            if torch.is_tensor(value)
        ]
        return MemoryCount(
            parameters=sum(sizes) * (2 if self._uses_original else 1),
            gradients=sum(learnt),
            optimizer=sum(state),
            activations=self.activations,
        )

    # -- the rest --------------------------------------------------------------------------------

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        parameters = [parameter for _, parameter in trainable(self.model)]
        common = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=recipe.momentum, **common)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        return kind(parameters, **common)

    def _is_compiled(self) -> bool:
        if self.compiled is not None:
            return self.compiled
        images = len(self.retain_index) + len(self.forget_index)
        steps = self.recipe.epochs * len(batch_sizes(images, self.recipe.batch_size))
        return self.device.type == "cuda" and steps >= COMPILED_STEPS

    def _compile(self) -> Callable[[Tensor], Tensor]:
        # What earlier trainings compiled counts towards torch's limit, and they are done with it.
        torch.compiler.reset()
        return torch.compile(self.model)

    def replace_model(self, model: nn.Module) -> None:
        """Train `model` from here on, with a new optimiser (Retrain's way to start afresh)."""
        self.model = model.to(self.device)
        self.__post_init__()

    def _stop_counting(self) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.activations = max(self.activations, self._counter.total)
            self._counter = None

    def _check_finite(self) -> None:
        state = (self._tally[0], *self.model.parameters(), *self.model.buffers())
        finite = torch.stack([value.isfinite().all() for value in state])
        if not bool(finite.all()):
            what = "weights are" if bool(finite[0]) else "loss is"
            raise TrainingDiverged(
                f"{self.name}: the {what} not finite in epoch {self._epoch + 1} "
                f"at a rate of {self.recipe.lr:g}; try a smaller rate"
            )

    def _show(self, images: int) -> None:
        self._seen += images
        part = min(1.0, self._seen / max(1, self._expected))
        show(self._bar, self._epoch + part, self._tally)

    def _save(self, done: int) -> None:
        if self.state_file is not None:
            facts = {
                "settings": self._settings(),
                "done": done,
                "log": self.log,
                "activations": self.activations,
                "seconds": self.earlier_seconds + time.perf_counter() - self._began,
            }
            checkpoint.save_state(self.state_file, self.model, self.optimizer, facts)

    def _restore(self) -> int:
        if self.state_file is None or not self.state_file.exists():
            return 0
        facts = checkpoint.load_state(self.state_file, self.model, self.optimizer, self._settings())
        self.log.update(facts.get("log", {}))
        self.activations = facts.get("activations", 0)
        self.earlier_seconds = facts.get("seconds", 0.0)
        return facts.get("done", 0)

    def _settings(self) -> str:
        return f"{self.name} {self.recipe} {self.options} seed {self.seed}"


def train(
    model: nn.Module,
    data: ImageData,
    index: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    name: str = "original",
    on_epoch: Callable[[int, nn.Module], None] | None = None,
    state_file: Path | None = None,
    deadline: float | None = None,
) -> Run:
    """Train `model` in place on the training images `index`; return the finished run.

    Parameters
    ----------
    model : nn.Module
        Float images [B, 3, H, W] in [0, 1] to logits [B, C], on the data's device.
    data : ImageData
    index : int64 tensor [N]
        Into `data.train_images`.
    on_epoch : function of (epochs done, model)
        Called after each epoch, e.g. to keep a checkpoint for study.
    state_file, deadline
        As for `unlearnkit.methods.unlearn`.

    Raises
    ------
    TrainingDiverged
        If a loss is not finite.
    OutOfTime
        If the deadline passed; the state is in `state_file`.
    """
    with torch.random.fork_rng():
        run = Run(
            model=model,
            images=data.train_images,
            labels=data.train_labels,
            retain_index=index,
            recipe=replace(recipe, flip=recipe.flip and data.flip),
            seed=seed,
            num_classes=data.num_classes,
            name=name,
            on_epoch=on_epoch,
            state_file=state_file,
            deadline=deadline,
        )
        for epoch in run.epochs():
            for images, labels in run.retain(epoch):
                run.step(run.cross_entropy(images, labels))
    model.eval()
    return run
