"""Batches of the experiment as PyTorch data loaders."""

from collections.abc import Callable, Iterator

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_project.augment import Augment
from lightning_project.runtime import Runtime
from shared.batches.batches import Batches, EvalBatches, TrainBatches
from shared.batches.data import Data, Images
from shared.config import Config
from shared.datasets.sampling import derive_step_seed


class BatchDataset(Dataset):
    """Whole batches as tensors; item i is batch i, and says so as `number`. A batch is read at once, so the loader has
    nothing to collate."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.batches[i].items()} | {"number": torch.tensor(i)}


class StepSampler(Sampler[int]):
    """The numbers of one epoch's batches, `parts` of them a step, from the step on at which training is.

    Lightning's `set_epoch` is one epoch behind after a resume from a checkpoint of an epoch's end (2.6.6).
    """

    def __init__(self, steps: int, parts: int, current_step: Callable[[], int]):
        self.steps, self.parts, self.current_step = steps, parts, current_step

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[int]:
        first = self.current_step()
        return iter(range(first * self.parts, (first // self.steps + 1) * self.steps * self.parts))


class DataModule(L.LightningDataModule):
    """Training, validation and test batches. Augmentation runs on the device, after the transfer of 8-bit images."""

    def __init__(self, config: Config, data: Data, runtime: Runtime):
        super().__init__()
        self.config, self.data, self.runtime = config, data, runtime
        self.augment = Augment(config.augment, data.mean, data.std, runtime.dtype)

    def loader(self, batches: Batches, sampler: Sampler[int] | None = None) -> DataLoader:
        workers = self.runtime.workers(from_files=self.data.train.files is not None)
        return DataLoader(BatchDataset(batches), batch_size=None, sampler=sampler, num_workers=workers,
                          pin_memory=self.runtime.accelerator == "gpu", persistent_workers=workers > 0)

    def train_dataloader(self) -> DataLoader:
        batches = TrainBatches(self.config, self.data, self.runtime.rank, self.runtime.processes)
        return self.loader(batches, StepSampler(batches.steps, batches.parts,
                                                lambda: self.trainer.global_step if self.trainer else 0))

    def eval_dataloader(self, split: Images) -> DataLoader:
        rank, processes = self.runtime.rank, self.runtime.processes
        return self.loader(EvalBatches(self.config, self.data, split, rank, processes, multiple_of=processes))

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.data.val)

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader(self.data.test)

    def predict_dataloader(self) -> list[DataLoader]:
        return [self.val_dataloader(), self.test_dataloader()]

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        if self.trainer and self.trainer.training:
            # Whatever PyTorch draws depends on the batch's number alone, so that a resumed run draws the same.
            torch.manual_seed(derive_step_seed(self.config.seed, int(batch["number"]), self.trainer.global_rank))
        kept = {name: batch[name] for name in ("index", "weight") if name in batch}
        return {"image": self.augment(batch), "target": batch["target"].to(self.runtime.dtype), **kept}
