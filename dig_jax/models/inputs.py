"""Model inputs: prompts of text and images as padded arrays (NumPy only).

Shape letters: B prompts, P padded prompt length, N padded patches per prompt.

All that varies between prompts (lengths, the number of images, their sizes) is held in arrays, so one
compiled program serves every prompt that fits the same P and N.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import flax.struct
import numpy as np

from dig_jax.models.architecture import Architecture

# The patches of one image [n, C*T*p*p] in merge-block order, and its grid (h, w) in patches.
Image = tuple[np.ndarray, tuple[int, int]]


@flax.struct.dataclass
class Prompts:
    """A batch of prompts, right-padded with zeros."""

    tokens: np.ndarray  # int32 [B,P]
    length: np.ndarray  # int32 [B]
    positions: np.ndarray  # int32 [B,3,P]: time, row, column (all alike in 1-D RoPE); 0 on padding
    next_position: np.ndarray  # int32 [B]: position of the first response token
    patches: np.ndarray  # float32 [B,N,C*T*p*p]: the images of a prompt one after another
    patch_image: np.ndarray  # int32 [B,N]: 1-based number of the image within its prompt; 0 on padding
    patch_coords: np.ndarray  # int32 [B,N,2]: row and column of the patch in its image
    patch_grid: np.ndarray  # int32 [B,N,2]: rows and columns of that image, in patches


def make_prompts(
    token_ids: Sequence[np.ndarray],
    images: Sequence[Sequence[Image]],
    config: Architecture,
    *,
    prompt_length: int,
    num_patches: int,
) -> Prompts:
    """Packs prompts into padded arrays.

    Args:
      token_ids: one int array per prompt, image placeholders already expanded to one per image token
        (`Architecture.placeholders`).
      images: the images of each prompt, in the order of their placeholders.
      config: of the model that will read them.
      prompt_length: P. num_patches: N, a multiple of merge_size^2.

    Raises:
      ValueError: naming the prompt, when it does not fit or its placeholders do not match its images.
    """
    vision = config.vision
    batch = len(token_ids)
    if len(images) != batch:
        raise ValueError(f"{batch} prompts but {len(images)} lists of images; expected one list per prompt")
    if num_patches % vision.merge_unit:
        raise ValueError(f"num_patches is {num_patches}, expected a multiple of {vision.merge_unit}")
    prompts = Prompts(
        tokens=np.zeros((batch, prompt_length), np.int32),
        length=np.zeros(batch, np.int32),
        positions=np.zeros((batch, 3, prompt_length), np.int32),
        next_position=np.zeros(batch, np.int32),
        patches=np.zeros((batch, num_patches, vision.patch_dim), np.float32),
        patch_image=np.zeros((batch, num_patches), np.int32),
        patch_coords=np.zeros((batch, num_patches, 2), np.int32),
        patch_grid=np.zeros((batch, num_patches, 2), np.int32),
    )
    for row, (ids, row_images) in enumerate(zip(token_ids, images, strict=True)):
        ids = np.asarray(ids, np.int32)
        length = len(ids)
        if not 1 <= length <= prompt_length:
            raise ValueError(f"prompt {row} has {length} tokens; expected 1 to prompt_length={prompt_length}")
        if (ids == config.video_token_id).any():
            raise ValueError(f"prompt {row} has video tokens; only images are supported")
        grids = [grid for _, grid in row_images]
        try:
            positions, next_position = rope_positions(
                ids, grids, config.placeholders, flat=config.flat_positions
            )
            _fill_patches(prompts, row, row_images, vision.spatial_merge_size)
        except ValueError as error:
            raise ValueError(f"prompt {row}: {error}") from None
        prompts.tokens[row, :length] = ids
        prompts.length[row] = length
        prompts.positions[row, :, :length] = positions
        prompts.next_position[row] = next_position
    return prompts


def widen(prompts: Prompts, *, prompt_length: int, num_patches: int) -> Prompts:
    """The same prompts with more padding: P becomes `prompt_length` and N `num_patches`, neither smaller."""

    def pad(array: np.ndarray, axis: int, size: int) -> np.ndarray:
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, size - array.shape[axis])
        return np.pad(array, widths)

    return dataclasses.replace(
        prompts,
        tokens=pad(prompts.tokens, 1, prompt_length),
        positions=pad(prompts.positions, 2, prompt_length),
        **{
            name: pad(getattr(prompts, name), 1, num_patches)
            for name in ("patches", "patch_image", "patch_coords", "patch_grid")
        },
    )


def rope_positions(
    ids: np.ndarray,
    grids: Sequence[tuple[int, int]],
    placeholders: Mapping[int, int],
    *,
    flat: bool = False,
) -> tuple[np.ndarray, int]:
    """Positions of one prompt for rotary embedding.

    Text tokens count up by one on all three axes (M-RoPE). The tokens of an image share one time; their rows
    and columns start from it, and the text goes on after the larger side of the image.

    Args:
      ids: int [T].
      grids: (rows, columns) in patches of each image.
      placeholders: see `Architecture.placeholders`.
      flat: image tokens count up like text.

    Returns:
      int32 positions [3,T] and the position of the next token.
    """
    positions = np.zeros((3, len(ids)), np.int32)
    is_image = np.isin(ids, list(placeholders))
    remaining = iter(grids)
    index = position = used = 0
    while index < len(ids):
        if not is_image[index]:
            positions[:, index] = position
            index, position = index + 1, position + 1
            continue
        grid = next(remaining, None)
        if grid is None:
            raise ValueError(
                f"image tokens at {index} but only {used} images; expected one image per placeholder"
            )
        side = placeholders[int(ids[index])]
        rows, columns = grid[0] // side, grid[1] // side
        stop = index + rows * columns
        if (ids[index:stop] != ids[index]).any() or stop > len(ids) or is_image[stop : stop + 1].any():
            raise ValueError(
                f"image {used} has a grid of {grid[0]}x{grid[1]} patches and needs exactly {rows * columns} "
                f"image tokens in a row at {index}"
            )
        row, column = np.divmod(np.arange(rows * columns), columns)
        positions[:, index:stop] = position + np.stack([np.zeros_like(row), row, column])
        index, position, used = stop, position + max(rows, columns), used + 1
    if used != len(grids):
        raise ValueError(f"{len(grids)} images but placeholders for {used}")
    if flat:
        return np.broadcast_to(np.arange(len(ids), dtype=np.int32), (3, len(ids))), len(ids)
    return positions, position


@functools.lru_cache(maxsize=256)  # a data set has few image sizes
def patch_coords(grid: tuple[int, int], merge_size: int) -> np.ndarray:
    """Row and column of every patch of an image in merge-block order, int32 [h*w,2].

    The patches of one image token stand together: order (h/m, w/m, m, m).
    """
    rows, columns = grid
    coords = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    blocks = coords.reshape(rows // merge_size, merge_size, columns // merge_size, merge_size, 2)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(-1, 2).astype(np.int32)


def _fill_patches(prompts: Prompts, row: int, images: Sequence[Image], merge_size: int) -> None:
    capacity, patch_dim = prompts.patches.shape[1:]
    start = 0
    for number, (patches, grid) in enumerate(images):
        if grid[0] % merge_size or grid[1] % merge_size or min(grid) < merge_size:
            raise ValueError(f"image {number} has grid {grid}; expected positive multiples of {merge_size}")
        if patches.shape != (grid[0] * grid[1], patch_dim):
            raise ValueError(
                f"image {number} has patches of shape {patches.shape}; "
                f"expected {(grid[0] * grid[1], patch_dim)} for grid {grid}"
            )
        stop = start + len(patches)
        if stop > capacity:
            total = sum(len(p) for p, _ in images)
            raise ValueError(f"{total} patches do not fit num_patches={capacity}")
        prompts.patches[row, start:stop] = patches
        prompts.patch_image[row, start:stop] = number + 1
        prompts.patch_coords[row, start:stop] = patch_coords(grid, merge_size)
        prompts.patch_grid[row, start:stop] = grid
        start = stop
