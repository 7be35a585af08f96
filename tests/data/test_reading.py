import numpy as np
import pytest
from PIL import Image

from mask2former.data.reading import read_image, read_mask, read_panoptic, read_size
from mask2former.utils.errors import UserError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a file with this EXIF orientation stores so that it shows `array`."""
    inverse = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(inverse[orientation](array))


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_sizes(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.repeat(np.repeat(COLOR // 255 * 255, 16, axis=0), 16, axis=1)  # whole JPEG blocks of one colour
    Image.fromarray(_turned(shown, orientation)).save(path, exif=exif)
    difference = np.abs(read_image(path).astype(int) - shown)
    assert difference.max() <= (0 if suffix != "jpg" else 20)
    assert read_size(path) == (96, 144)


def test_channel_order_follows_the_format(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", "RGB"), COLOR)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", "BGR"), COLOR[:, :, ::-1])
    with pytest.raises(UserError, match="INPUT.FORMAT is 'HSV'; expected one of RGB, BGR"):
        read_image(tmp_path / "a.png", "HSV")


def test_grey_palette_alpha_and_sixteen_bit_images_become_three_bytes(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([GREY, GREY[::-1]])).save(tmp_path / "grey_alpha.png")
    Image.fromarray(np.dstack([COLOR, GREY])).save(tmp_path / "rgba.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.tif")
    palette = Image.fromarray(GREY % 4)
    palette.putpalette(COLOR[0, :4].flatten().tolist())
    palette.save(tmp_path / "palette.png")
    spread = np.repeat(GREY[:, :, None], 3, axis=2)
    for name, wanted in {
        "grey.png": spread,
        "grey_alpha.png": spread,
        "deep.png": spread,
        "deep.tif": spread,
        "rgba.png": COLOR,
        "palette.png": COLOR[0, :4][GREY % 4],
    }.items():
        got = read_image(tmp_path / name)
        assert got.dtype == np.uint8, name
        np.testing.assert_array_equal(got, wanted, err_msg=name)


def test_masks_keep_their_ids(tmp_path):
    wide = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).save(tmp_path / "wide.tif")
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(GREY > 99).save(tmp_path / "binary.png")
    palette = Image.fromarray(GREY % 4)
    palette.putpalette([7, 7, 7] * 4)  # ids are positions, whatever the colours
    palette.save(tmp_path / "palette.png")
    for name, wanted in {
        "wide.png": wide,
        "wide.tif": wide,
        "grey.png": GREY,
        "binary.png": GREY > 99,
        "palette.png": GREY % 4,
    }.items():
        got = read_mask(tmp_path / name)
        assert got.dtype == np.int32, name
        np.testing.assert_array_equal(got, wanted, err_msg=name)


def test_a_colour_mask_is_refused(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png has pixels of mode 'RGB'; expected one class id"):
        read_mask(tmp_path / "a.png")


def test_broken_and_missing_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(RNG.integers(0, 256, (50, 50), dtype=np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    for read in (read_image, read_mask):
        for name in ("text.png", "half.png"):
            with pytest.raises(UserError, match=rf"{name} cannot be read.*Replace the file"):
                read(tmp_path / name)
        with pytest.raises(UserError, match=r"gone\.png does not exist"):
            read(tmp_path / "gone.png")


def test_size_comes_from_the_header(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (120, 180), dtype=np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "head.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    assert read_size(tmp_path / "head.png") == (120, 180)


def test_panoptic_ids_are_put_together_from_three_bytes(tmp_path):
    ids = COLOR.astype(np.int32) @ [1, 256, 65536]
    Image.fromarray(COLOR).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([COLOR, GREY])).save(tmp_path / "rgba.png")
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    wide = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for name, wanted in (("rgb", ids), ("rgba", ids), ("grey", GREY), ("wide", wide)):
        found = read_panoptic(tmp_path / f"{name}.png")
        assert found.dtype == np.int32, name
        np.testing.assert_array_equal(found, wanted, err_msg=name)
    Image.fromarray(COLOR).convert("CMYK").save(tmp_path / "cmyk.tif")
    with pytest.raises(UserError, match=r"cmyk.tif has pixels of mode 'CMYK'; expected segment ids"):
        read_panoptic(tmp_path / "cmyk.tif")
    for outside in (-1, 1 << 24):
        Image.fromarray(np.full((6, 9), outside, np.int32)).save(tmp_path / "outside.tif")
        with pytest.raises(UserError, match=r"outside.tif has ids outside 0 to 16777215"):
            read_panoptic(tmp_path / "outside.tif")
    with pytest.raises(UserError, match=r"Panoptic map .*none.png does not exist"):
        read_panoptic(tmp_path / "none.png")
