"""Test-time augmentation of semantic results: what the copies are, and how their scores come together."""

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as F

from mask2former.evaluation import SemanticTTA
from mask2former.utils.errors import UserError


class Pixelwise(nn.Module):
    """Scores that depend on each pixel alone, resized to the asked size; remembers the images it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs):
        results = []
        for x in inputs:
            self.seen.append(x["image"])
            scores = torch.stack([x["image"].float().sum(0).sin(), x["image"].float().prod(0).cos()])
            size = [x["height"], x["width"]]
            results.append({"sem_seg": F.resize_image(scores, size, antialias=False), "panoptic_seg": "not asked for"})
        return results


@pytest.fixture
def sample():
    image = torch.randint(0, 256, (3, 24, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"image": image, "height": 30, "width": 45, "file_name": "a.jpg"}


def test_one_copy_of_the_same_size_is_the_model(sample):
    (result,) = SemanticTTA(Pixelwise(), [24], 100, flip=False)([sample])
    assert result.keys() == {"sem_seg"}
    torch.testing.assert_close(result["sem_seg"], Pixelwise()([sample])[0]["sem_seg"], rtol=0, atol=0)


def test_mirror_images_change_nothing_for_a_model_that_mirrors_with_them(sample):
    (plain,), (mirrored,) = (SemanticTTA(Pixelwise(), [12, 24], 100, flip=flip)([sample]) for flip in (False, True))
    torch.testing.assert_close(mirrored["sem_seg"], plain["sem_seg"])


def test_mirrored_input_gives_the_mirrored_result_with_any_model(sample):
    class LeftToRight(Pixelwise):
        def forward(self, inputs):
            return [{"sem_seg": x["sem_seg"].cumsum(-1)} for x in super().forward(inputs)]

    model = SemanticTTA(LeftToRight(), [24, 30], 100, flip=True)
    (result,), (other,) = model([sample]), model([{**sample, "image": sample["image"].flip(-1)}])
    torch.testing.assert_close(other["sem_seg"], result["sem_seg"].flip(-1), rtol=1e-4, atol=1e-4)


def test_the_result_is_the_mean_over_sizes(sample):
    (result,) = SemanticTTA(Pixelwise(), [12, 24], 100, flip=False)([sample])
    single = [SemanticTTA(Pixelwise(), [size], 100, flip=False)([sample])[0]["sem_seg"] for size in (12, 24)]
    torch.testing.assert_close(result["sem_seg"], (single[0] + single[1]) / 2)


def test_sizes_of_the_copies(sample):
    model = Pixelwise()
    SemanticTTA(model, [12, 24, 48], 60, flip=True)([sample])
    sizes = [tuple(image.shape[1:]) for image in model.seen]
    assert sizes == [(12, 18), (12, 18), (24, 36), (24, 36), (40, 60), (40, 60)]  # the longer side is at most 60
    assert all(image.dtype == torch.uint8 and type(image) is torch.Tensor for image in model.seen)
    for image, mirrored in zip(model.seen[::2], model.seen[1::2]):
        torch.testing.assert_close(mirrored, image.flip(-1))


def test_size_of_the_result_is_that_of_the_image_where_none_is_asked(sample):
    (result,) = SemanticTTA(Pixelwise(), [12], 100, flip=False)([{"image": sample["image"]}])
    assert result["sem_seg"].shape == (2, 24, 36)


def test_what_the_model_keeps_stays_as_it_was(sample):
    class Constant(nn.Module):
        scores = torch.ones(2, 30, 45)

        def forward(self, inputs):
            return [{"sem_seg": self.scores}]

    SemanticTTA(Constant(), [12, 24], 100, flip=False)([sample])
    assert (Constant.scores == 1).all()


def test_a_model_without_semantic_result_is_refused(sample):
    class Silent(nn.Module):
        def forward(self, inputs):
            return [{}]

    with pytest.raises(UserError, match=r"SEMANTIC_ON True or TEST\.AUG\.ENABLED False"):
        SemanticTTA(Silent(), [12], 100, flip=False)([sample])
