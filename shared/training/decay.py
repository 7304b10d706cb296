"""Which parameters weight decay applies to."""


def is_decayed(shape: tuple[int, ...], norm_and_bias: bool) -> bool:
    """Whether weight decay applies to a parameter of this shape: to kernels and matrices, which have 4 or 2 axes.

    With `norm_and_bias` it applies to all parameters, otherwise not to biases and to the parameters of normalisation,
    which have one axis. As in timm it does not apply to a ViT's class token and position embedding, which have three.
    """
    return norm_and_bias or len(shape) in (2, 4)
