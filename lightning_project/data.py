"""The batches of `shared.data.batches` in PyTorch data loaders."""

import math
from collections.abc import Callable, Iterator

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_project.augment import Augmentation
from lightning_project.runtime import Runtime
from shared.config import Config
from shared.data.batches import Batches, EvalBatches, TrainBatches
from shared.data.loading import Data, Images
from shared.data.sampling import derive_step_seed
from shared.machine.console import say, tell_if_slow
from shared.machine.hardware import measure_shared_memory


class BatchDataset(Dataset):
    """A data set whose item i is batch i, with i as `number`. So the data loader has nothing to collate.

    Its arrays are tensors, which a reading process hands over in shared memory. With `in_pipes` they are NumPy's, which
    it sends through a pipe.
    """

    def __init__(self, batches: Batches, in_pipes: bool):
        self.batches, self.in_pipes = batches, in_pipes

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor | np.ndarray]:
        batch = self.batches[i] | {"number": np.array(i)}
        return batch if self.in_pipes else {name: torch.from_numpy(array) for name, array in batch.items()}


def keep_batch(batch: dict[str, torch.Tensor | np.ndarray]) -> dict[str, torch.Tensor | np.ndarray]:
    """The batch as it is. A data loader of its own accord would make tensors of arrays, in the reading process."""
    return batch


def measure_image(batches: Batches) -> int:
    """The bytes that an image takes in a batch, with all that belongs to it."""
    return sum(dtype.itemsize * math.prod(shape[1:]) for dtype, shape in batches.describe_arrays().values())


class WatchedLoader(DataLoader):
    """A data loader that says so where a batch is long in coming."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor | np.ndarray]]:
        batches, end = super().__iter__(), object()
        while True:
            with tell_if_slow("reading a batch of images"):
                batch = next(batches, end)
            if batch is end:
                return
            yield batch


class StepSampler(Sampler[int]):
    """The numbers of an epoch's batches, of which each training step has `parts`.

    They begin at the step that `current_step` returns, so that a run can be resumed within an epoch. Lightning's
    `set_epoch` would not do: after a resume from the end of an epoch it is called with the epoch before (2.6.6).
    """

    def __init__(self, steps: int, parts: int, current_step: Callable[[], int]):
        self.steps, self.parts, self.current_step = steps, parts, current_step

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[int]:
        first = self.current_step()
        return iter(range(first * self.parts, (first // self.steps + 1) * self.steps * self.parts))


class DataModule(L.LightningDataModule):
    """Training, validation and test batches. The images are moved to the device as 8-bit integers and augmented there.
    """

    def __init__(self, config: Config, data: Data, runtime: Runtime):
        super().__init__()
        self.config, self.data, self.runtime = config, data, runtime
        self.augment = Augmentation(config.augment, data.mean, data.std, runtime.dtype)
        self.workers = runtime.choose_workers(from_files=data.train.takes_time)
        self.in_pipes = self.decide_on_pipes()

    def decide_on_pipes(self) -> bool:
        """Whether readers send their batches through pipes, because what they read ahead may not fit into the shared
        memory, in which case they would wait for ever. A line says so."""
        config, data = self.config, self.data
        images = (measure_image(TrainBatches(config, data)) * config.train.batch_size / config.train.accumulate
                  + measure_image(EvalBatches(config, data, data.val)) * config.train.eval_batch_size)
        # A reader is two batches ahead, and the readers of training wait with theirs while others validate. Each
        # process has its own readers and its share of the images.
        needed, free = 2 * self.workers * images / config.hardware.num_nodes, measure_shared_memory()
        if needed <= free:
            return False
        say(f"the shared memory in /dev/shm has {free / 2**20:,.0f} MiB free, and {self.workers} readers may need "
            f"{needed / 2**20:,.0f}: they send batches through pipes, which is slower; give a container more, such as "
            "docker run --shm-size=8g", leader=self.runtime.leader)
        return True

    def build_loader(self, batches: Batches, sampler: Sampler[int] | None = None) -> DataLoader:
        return WatchedLoader(BatchDataset(batches, self.in_pipes), batch_size=None, sampler=sampler,
                             collate_fn=keep_batch, num_workers=self.workers, persistent_workers=self.workers > 0,
                             pin_memory=self.runtime.accelerator == "gpu")

    def train_dataloader(self) -> DataLoader:
        batches = TrainBatches(self.config, self.data, self.runtime.rank, self.runtime.processes)
        sampler = StepSampler(batches.steps, batches.parts, lambda: self.trainer.global_step if self.trainer else 0)
        return self.build_loader(batches, sampler)

    def eval_dataloader(self, split: Images) -> DataLoader:
        """One pass over a split, the last partial batch included."""
        rank, processes = self.runtime.rank, self.runtime.processes
        return self.build_loader(EvalBatches(self.config, self.data, split, rank, processes, multiple_of=processes))

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.data.val)

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.data.test)

    def predict_dataloader(self) -> list[DataLoader]:
        return [self.val_dataloader(), self.test_dataloader()]

    def on_before_batch_transfer(self, batch: dict[str, torch.Tensor | np.ndarray],
                                 dataloader_idx: int) -> dict[str, torch.Tensor]:
        """The batch as tensors, which those that came through a pipe are not yet."""
        return {name: torch.as_tensor(array) for name, array in batch.items()}

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        """Images (n, C, S, S) and targets (n, K) for the model, with index (n,) and, in evaluation, weight (n,)."""
        if self.trainer and self.trainer.training:
            # All that PyTorch draws for a batch depends on its number alone, so that a resumed run draws the same.
            torch.manual_seed(derive_step_seed(self.config.seed, int(batch["number"]), self.trainer.global_rank))
        kept = {name: batch[name] for name in ("index", "weight") if name in batch}
        return {"image": self.augment(batch), "target": batch["target"].to(self.runtime.dtype), **kept}
