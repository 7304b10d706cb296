"""Every batch of an experiment, as a pure function of its number. Both siblings read all their images from here."""

from functools import lru_cache, partial

import numpy as np

from shared.config import AugmentConfig, Config
from shared.data import augment, decode
from shared.data.loading import Data, Images
from shared.data.sampling import order_epoch, order_epoch_balanced

# Not a method, because batches are pickled for the processes that read them. Two epochs are kept, because readers
# begin with the next epoch before the present one has ended.
order_epoch_cached = lru_cache(maxsize=2)(order_epoch)

PAD_MODES = {"zeros": "constant", "reflect": "reflect"}  # NumPy's names of `augment.crop_fill`


class BalancedOrder:
    """`order_epoch_balanced` for the images of one split. It keeps the order of the last two epochs."""

    def __init__(self, labels: np.ndarray, seed: int):
        self.labels, self.seed = labels, seed
        self.kept: dict[int, np.ndarray] = {}

    def __call__(self, epoch: int) -> np.ndarray:
        if epoch not in self.kept:
            self.kept = {other: order for other, order in self.kept.items() if other == epoch - 1}
            self.kept[epoch] = order_epoch_balanced(self.labels, self.seed, epoch)
        return self.kept[epoch]


class Batches:
    """A sequence of batches: `batches[i]` is a dictionary of NumPy arrays, for n images of C channels in K classes.

    Every batch has image (n, H, W, C) uint8, which images in memory have before augmentation and files after cropping;
    target (n, K) float32, one-hot or mixed; and index (n,) int64, the images' places in the split.
    Augmented batches have flip (n,) bool. Where the config asks for it, there are rows (n or 1, S, H) and columns
    (n or 1, S, W) float32, see `augment.build_geometry`, and partner, box and opacity, see `augment.choose_mixing`.
    """

    def __init__(self, config: Config, data: Data, split: Images, rank: int = 0, processes: int = 1):
        """Of each global batch, the process number `rank` of so many `processes` reads its share alone."""
        self.config, self.data, self.split = config, data, split
        self.rank, self.processes = rank, processes

    def take_share(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of the rows of a global batch. Their number is a multiple of the number of processes."""
        size = len(rows) // self.processes
        return rows[self.rank * size:(self.rank + 1) * size]

    def read_images(self, indices: np.ndarray, draws: np.ndarray | None) -> dict[str, np.ndarray]:
        """The images at `indices`, augmented as `draws` decides; None means without augmentation."""
        settings, size = self.config.augment, self.data.image_size
        target = np.eye(len(self.data.classes), dtype=np.float32)[self.split.labels[indices]]
        batch = {"target": target, "index": np.array(indices, np.int64)}
        if self.split.pixels is not None:
            batch["image"] = self.split.pixels[indices]
            matrices = augment.build_geometry(settings, draws, *batch["image"].shape[1:3], size,
                                        self.config.dataset.interpolation, self.config.dataset.center_crop)
            if matrices is not None:
                batch["rows"], batch["columns"] = matrices
        else:
            batch["image"] = self.read_files(indices, draws)
        if draws is not None:
            batch["flip"] = augment.choose_flips(settings, draws)
        if draws is not None and augment.uses_mixing(settings):
            mix = augment.choose_mixing(settings, draws, size)
            share = mix.pop("share")[:, None]
            batch |= mix
            batch["target"] = share * target + (1 - share) * target[mix["partner"]]
        return batch

    def read_files(self, indices: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Image files, cropped and resized, (n, S, S, 3) uint8."""
        settings, dataset, size = self.config.augment, self.config.dataset, self.data.image_size
        how = "exact" if draws is None else dataset.decode
        kept = self.split.kept if self.split.kept and self.split.kept.form.decode == how else None
        if kept and kept.form.is_square:
            images = kept.read_squares(indices)
        else:
            images = np.empty((len(indices), size, size, 3), np.uint8)
            for i, index in enumerate(indices):
                box = decode.make_central_box(dataset.center_crop)
                if draws is not None and settings.crop == "resized":
                    box = partial(choose_box, settings, draws[[i]])
                images[i] = kept.read_part(index, size, box, dataset.interpolation) if kept else \
                    decode.read_image(self.split.files[index], size, box, dataset.interpolation, how)
        if draws is not None and settings.crop == "pad" and settings.crop_padding:
            return shift_images(images, augment.choose_offsets(settings, draws), settings)
        return images

    def describe_arrays(self) -> dict[str, tuple[np.dtype, tuple[int | None, ...]]]:
        """Dtype and shape of each array of a batch; None stands for the batch size. No image is read."""
        return {name: (array.dtype, (None, *array.shape[1:])) for name, array in self.make_blank().items()}

    def make_blank(self) -> dict[str, np.ndarray]:
        """A batch of one black image, with the arrays that a real one has."""
        size, channels = self.data.image_size, self.data.channels
        pixels = self.split.pixels
        shape = (1, size, size, channels) if pixels is None else (1, *pixels.shape[1:])
        black = Images(labels=np.zeros(1, np.int64), pixels=np.zeros(shape, np.uint8), files=None)
        draws = np.zeros((1, 10)) if self.augmented else None
        blank = Batches(self.config, self.data, black).read_images(np.zeros(1, np.int64), draws)
        if pixels is None:  # a file is cropped and resized while it is read
            blank = {name: array for name, array in blank.items() if name not in ("rows", "columns")}
        return blank

    @property
    def augmented(self) -> bool:
        return False


class TrainBatches(Batches):
    """The training batches of all epochs. Batch i is that of training step i, counted from 0 over the whole run.

    With `train.accumulate` = k, a step has k batches, which are parts of its global batch: step i has those from i k to
    i k + k - 1.
    """

    def __init__(self, config: Config, data: Data, rank: int = 0, processes: int = 1):
        super().__init__(config, data, data.train, rank, processes)
        self.steps = count_steps(config, len(data.train))
        self.parts = config.train.accumulate
        is_balanced = config.dataset.balance == "oversample"
        self.balanced = BalancedOrder(data.train.labels, config.seed) if is_balanced else None

    def __len__(self) -> int:
        return self.steps * self.parts * self.config.train.epochs

    @property
    def augmented(self) -> bool:
        return not self.config.debug.overfit_batches

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        step, part = divmod(number, self.parts)
        # Parts are made first and shared out then, so that a part has the same images on any number of devices.
        indices, draws = self.take_share(np.split(self.list_indices(step), self.parts)[part]), None
        if self.augmented:
            draws = augment.draw_epoch(len(self.split), self.config.seed, step // self.steps,
                                       self.config.augment.alternating_flip)
            # An image that is repeated within an epoch is augmented in another way each time, because its draws are
            # those of its place in the epoch.
            rows = self.take_share(np.split(self.list_places(step), self.parts)[part]) if self.balanced else indices
            draws = draws[rows]
        return self.read_images(indices, draws)

    def list_places(self, step: int) -> np.ndarray:
        """The places of the global batch of `step` in the order of its epoch, (n,) int64."""
        first = step % self.steps * self.config.train.batch_size
        return np.arange(first, first + self.config.train.batch_size)

    def list_indices(self, step: int) -> np.ndarray:
        """Which images of the training split are in the global batch of `step`, (n,) int64."""
        epoch = 0 if self.config.debug.overfit_batches else step // self.steps
        order = self.balanced(epoch) if self.balanced else order_epoch_cached(len(self.split), self.config.seed, epoch)
        return order[self.list_places(step)]

    def name_images(self, step: int) -> list[int] | list[str]:
        """The images of the global batch of `step`, for a person to find: their files, or their places in the split."""
        indices = self.list_indices(step)
        return (indices if self.split.files is None else np.asarray(self.split.files)[indices]).tolist()


class EvalBatches(Batches):
    """One pass over a split in its own order, the last partial batch included.

    Devices take equal shares, so a batch is filled up to a multiple of `multiple_of` rows by repeating its last image.
    It also has weight (n,) float32, which is 0 for these repeated rows, so that they count nowhere, and else 1.
    """

    def __init__(self, config: Config, data: Data, split: Images, rank: int = 0, processes: int = 1,
                 multiple_of: int = 1):
        super().__init__(config, data, split, rank, processes)
        self.multiple_of = multiple_of

    def __len__(self) -> int:
        batches = -(-len(self.split) // self.config.train.eval_batch_size)
        limit = self.config.debug.limit_batches
        return min(batches, limit) if limit else batches

    def list_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Which images are in the global batch `step`, (n,) int64, and their weights, (n,) float32."""
        size = self.config.train.eval_batch_size
        rows = np.arange(step * size, min((step + 1) * size, len(self.split)))
        padding = -len(rows) % self.multiple_of
        return np.pad(rows, (0, padding), mode="edge"), np.repeat(np.float32([1, 0]), [len(rows), padding])

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rows, weight = self.list_rows(step)
        return {**self.read_images(self.take_share(rows), None), "weight": self.take_share(weight)}

    def make_blank(self) -> dict[str, np.ndarray]:
        return {**super().make_blank(), "weight": np.ones(1, np.float32)}


def choose_box(settings: AugmentConfig, draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """The random area of an image whose draws are (1, 10): top, left, height, width, (4,) float64."""
    return augment.choose_resized_boxes(settings, draws, height, width)[0]


def shift_images(images: np.ndarray, offsets: np.ndarray, settings: AugmentConfig) -> np.ndarray:
    """Of images (n, S, S, 3) the window of each padded image that begins at its offset, (n, 2), in the same shape."""
    pad, size = settings.crop_padding, images.shape[1]
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), PAD_MODES[settings.crop_fill])
    return np.stack([image[top:top + size, left:left + size]
                     for image, (top, left) in zip(padded, (offsets + pad).tolist(), strict=True)])


def count_steps(config: Config, train_images: int) -> int:
    """Training steps in an epoch. Images that do not fill a batch are left out; in each epoch it is others."""
    steps = train_images // config.train.batch_size
    for limit in (config.debug.limit_batches, config.debug.overfit_batches):
        steps = min(steps, limit) if limit else steps
    return steps
