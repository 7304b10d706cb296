"""The batches of `shared.batches` in PyTorch data loaders."""

from collections.abc import Callable, Iterator

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_project.augment import Augmentation
from lightning_project.runtime import Runtime
from shared.batches.batches import Batches, EvalBatches, TrainBatches
from shared.batches.data import Data, Images
from shared.config import Config
from shared.datasets.sampling import derive_step_seed


class BatchDataset(Dataset):
    """A data set whose item i is batch i, as tensors, with i as `number`. So the data loader has nothing to collate."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.batches[i].items()} | {"number": torch.tensor(i)}


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

    def build_loader(self, batches: Batches, sampler: Sampler[int] | None = None) -> DataLoader:
        workers = self.runtime.choose_workers(from_files=self.data.train.files is not None)
        return DataLoader(BatchDataset(batches), batch_size=None, sampler=sampler, num_workers=workers,
                          pin_memory=self.runtime.accelerator == "gpu", persistent_workers=workers > 0)

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

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        """Images (n, C, S, S) and targets (n, K) for the model, with index (n,) and, in evaluation, weight (n,)."""
        if self.trainer and self.trainer.training:
            # All that PyTorch draws for a batch depends on its number alone, so that a resumed run draws the same.
            torch.manual_seed(derive_step_seed(self.config.seed, int(batch["number"]), self.trainer.global_rank))
        kept = {name: batch[name] for name in ("index", "weight") if name in batch}
        return {"image": self.augment(batch), "target": batch["target"].to(self.runtime.dtype), **kept}
