"""The data sets: where each comes from, how a download is checked, how it is read, and what its images are.

To add a data set, add an entry to DEFINITIONS; docs/changing.md shows it.
"""

from shared.data.definition import Definition, Download, validate_definition
from shared.data.hub import PREFIX, define_hub_dataset

# Those of ImageNet's training images, which published weights expect
# (https://docs.pytorch.org/vision/stable/models.html).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

CIFAR = "https://www.cs.toronto.edu/~kriz"
CIFAR_PAPER = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
CIFAR_LICENCE = "none stated; its page asks to cite the report"

CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
    shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

FASHION_MNIST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

IMAGENETTE = "https://s3.amazonaws.com/fast-ai-imageclas"
IMAGENETTE_CLASSES = (
    ("n01440764", "tench"), ("n02102040", "English springer"), ("n02979186", "cassette player"),
    ("n03000684", "chain saw"), ("n03028079", "church"), ("n03394916", "French horn"), ("n03417042", "garbage truck"),
    ("n03425413", "gas pump"), ("n03445777", "golf ball"), ("n03888257", "parachute"))


def define_imagenette(archive: str, md5: str, megabytes: int) -> Definition:
    return Definition(
        source="https://github.com/fastai/imagenette",
        licence="Apache-2.0 for the selection; the images are ImageNet's, for non-commercial research",
        paper="Deng et al., ImageNet: A Large-Scale Hierarchical Image Database, CVPR 2009",
        mean=IMAGENET_MEAN, std=IMAGENET_STD, image_size=224, class_names=IMAGENETTE_CLASSES,
        downloads=(Download(f"{IMAGENETTE}/{archive}.tgz", md5, megabytes),),
        folders=(archive,), members=("train", "val"),
    )


DEFINITIONS = {
    "digits": Definition(
        # scikit-learn contains the test part of UCI's optdigits alone, so there is no official split.
        source="https://archive.ics.uci.edu/dataset/80", licence="CC BY 4.0",
        paper="Kaynak, Methods of Combining Multiple Classifiers and Their Applications to Handwritten Digit "
              "Recognition, 1995",
        # Computed over the 1,438 images that are not test images; a test repeats it.
        mean=(0.3049,), std=(0.3755,),
        image_size=8, reader="digits", classes=tuple("0123456789"), train_images=1438, test_images=359,
    ),
    "fashion_mnist": Definition(
        source="https://github.com/zalandoresearch/fashion-mnist", licence="MIT",
        paper="Xiao et al., Fashion-MNIST, arXiv:1708.07747",
        # Computed over the 60,000 training images; a test repeats it where the files are at hand.
        mean=(0.2860,), std=(0.3530,),
        image_size=28, reader="fashion_mnist", train_images=60_000, test_images=10_000,
        classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                 "Ankle boot"),
        downloads=(
            Download(f"{FASHION_MNIST}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26),
            Download(f"{FASHION_MNIST}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 1),
            Download(f"{FASHION_MNIST}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4),
            Download(f"{FASHION_MNIST}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 1),
        ),
        folders=("fashion-mnist", "FashionMNIST/raw"),  # the second is torchvision's
        members=("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
                 "t10k-labels-idx1-ubyte.gz"),
    ),
    "cifar10": Definition(
        source=f"{CIFAR}/cifar.html", licence=CIFAR_LICENCE, paper=CIFAR_PAPER,
        # Over all pixels of the 50,000 training images, as in https://github.com/KellerJordan/cifar10-airbench. The
        # smaller std that others use (0.2023, 0.1994, 0.2010) is the mean of the images' own standard deviations.
        mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616),
        image_size=32, reader="cifar", train_images=50_000, test_images=10_000,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        downloads=(Download(f"{CIFAR}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170),),
        folders=("cifar-10-batches-bin",),
        members=(*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
    ),
    "cifar100": Definition(
        source=f"{CIFAR}/cifar.html", licence=CIFAR_LICENCE, paper=CIFAR_PAPER,
        # The values of https://github.com/weiaicunzai/pytorch-cifar100, rounded.
        mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762),
        image_size=32, reader="cifar", train_images=50_000, test_images=10_000,
        classes=tuple(CIFAR100_CLASSES.split()),
        downloads=(Download(f"{CIFAR}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 169),),
        folders=("cifar-100-binary",), members=("train.bin", "test.bin"),
    ),
    "imagenette/160": define_imagenette("imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412", 99),
    "imagenette/320": define_imagenette("imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3", 342),
    "imagenette/full": define_imagenette("imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612", 1557),
    "imagenet_mini": Definition(
        source="https://www.kaggle.com/datasets/ifigotin/imagenetmini-1000",  # needs an account, so no download here
        licence="ImageNet's terms: non-commercial research", paper="Russakovsky et al., arXiv:1409.0575",
        mean=IMAGENET_MEAN, std=IMAGENET_STD, image_size=224, folders=("imagenet-mini",), members=("train", "val"),
    ),
    "image_folder": Definition(
        source="your own", licence="your own", paper="", mean=IMAGENET_MEAN, std=IMAGENET_STD, image_size=224),
}


def list_datasets() -> tuple[str, ...]:
    """The choices of `dataset.name`."""
    return tuple(dict.fromkeys(name.partition("/")[0] for name in DEFINITIONS))


def list_variants(name: str = "") -> tuple[str, ...]:
    """The choices of `dataset.variant` for a data set, empty for one that has a single form; without a name, all."""
    pairs = [key.partition("/") for key in DEFINITIONS if "/" in key]
    return tuple(dict.fromkeys(variant for owner, _, variant in pairs if name in ("", owner)))


def find_definition(name: str, variant: str) -> Definition:
    """The facts about the data set that `dataset.name` and `dataset.variant` name. Raises `UserError`."""
    if name.startswith(PREFIX):
        return define_hub_dataset(name, IMAGENET_MEAN, IMAGENET_STD)
    key = f"{name}/{variant}" if list_variants(name) else name
    validate_definition(key, DEFINITIONS[key])
    return DEFINITIONS[key]
