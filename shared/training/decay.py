"""Which parameters weight decay applies to."""

# Parameters of these names have several axes and are no kernels: a ViT's tokens and its position embedding, as in timm,
# and the slopes of Keras' PReLU, (1, 1, C).
NO_KERNELS = ("cls_token", "pos_embed", "dist_token", "alpha")


def is_decayed(name: str, shape: tuple[int, ...], norm_and_bias: bool) -> bool:
    """Whether weight decay applies to a parameter: to kernels and matrices, which have two axes or more.

    With `norm_and_bias` it applies to all parameters, otherwise not to biases and to the parameters of normalisation,
    which have one axis. `name` is the parameter's own, or ends with it after a point or a slash.
    """
    own = name.replace("/", ".").rpartition(".")[2]
    return norm_and_bias or (len(shape) > 1 and own not in NO_KERNELS)
