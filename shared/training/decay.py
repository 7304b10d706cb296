"""Which parameters decay."""


def is_decayed(shape: tuple[int, ...], norm_and_bias: bool) -> bool:
    """Whether weight decay touches a parameter of this shape: kernels and matrices.

    Biases and what normalises do not decay unless `norm_and_bias`, nor do, as in timm, a ViT's class token and position
    embedding, which have three axes.
    """
    return norm_and_bias or len(shape) in (2, 4)
