"""Image models on videos: tracks of linked instances, evaluated as those of a model of clips."""

import numpy as np
import pytest
import torch
from torch import nn

from mask2former.evaluation import FrameByFrame, VideoInstanceEvaluator, inference_on_dataset
from mask2former.structures import Instances, LabelSet, TrackMasks, rle_encode
from mask2former.utils.errors import UserError

# T frames, H W frame size

LABELS = LabelSet(("box", "ball"), thing_ids=(0, 1))
SIZE, LENGTH = (40, 60), 20
COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}  # track -> its colour; 2 is a ball


class ByColour(nn.Module):
    """Finds the drawn squares in random order, and one that is not there, faintly."""

    def forward(self, inputs):
        assert [(x["height"], x["width"]) for x in inputs] == [SIZE]
        image = inputs[0]["image"].permute(1, 2, 0)
        found = [(track, (image == torch.tensor(colour)).all(2)) for track, colour in COLOURS.items()]
        found = [found[i] for i in torch.randperm(len(found)) if found[i][1].any()]
        masks = [mask for _, mask in found] + [torch.ones(SIZE, dtype=torch.bool)]
        classes = [int(track == 2) for track, _ in found] + [0]
        scores = torch.tensor([0.8] * len(found) + [0.01])
        instances = Instances(SIZE, pred_masks=torch.stack(masks), pred_classes=torch.tensor(classes), scores=scores)
        return [{"instances": instances, "panoptic_seg": None}]


def drawn_video(number):
    """A record with its frames; the third square is in the later half alone."""
    frames, annotations = np.zeros((LENGTH, *SIZE, 3), np.uint8), []
    for t, frame in enumerate(frames):
        objects = []
        for track, (left, top) in {1: (t, 2), 2: (50 - t, 15), 3: (20, 28)}.items():
            if track < 3 or t > LENGTH // 2:
                mask = np.zeros(SIZE, bool)
                mask[top : top + 10, left : left + 10] = True
                frame[mask] = COLOURS[track]
                objects.append({"id": track, "category_id": int(track == 2), "segmentation": rle_encode(mask)})
        annotations.append(objects)
    record = {"video_id": number, "file_names": [f"{number}/{t}.jpg" for t in range(LENGTH)], "length": LENGTH}
    images = [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames]
    return {**record, "height": SIZE[0], "width": SIZE[1], "annotations": annotations, "image": images}


def test_objects_of_an_image_model_become_tracks():
    video = drawn_video(1)
    (result,) = FrameByFrame(ByColour(), num_classes=2, top_k=10)([{**video, "image": iter(video["image"])}])
    assert result["image_size"] == SIZE
    assert sorted(zip(result["pred_labels"], map(len, result["pred_masks"])))[-1] == (1, LENGTH)
    assert all(isinstance(masks, TrackMasks) for masks in result["pred_masks"])
    assert max(result["pred_scores"]) == pytest.approx(0.8)


def test_a_model_that_sees_all_has_ap_100():
    model = FrameByFrame(ByColour(), num_classes=2, top_k=10)
    batches = [[drawn_video(number)] for number in (1, 2)]
    results = inference_on_dataset(model, batches, VideoInstanceEvaluator(LABELS))
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["frame_segm"]["AP"] == pytest.approx(100)
    assert results["tracking"]["IDSw"] == 0
    assert results["tracking"]["Recall"] == 100


def test_only_the_best_are_kept():
    (result,) = FrameByFrame(ByColour(), num_classes=2, top_k=2)([drawn_video(1)])
    assert len(result["pred_scores"]) == 2


def test_a_model_without_instances_is_told():
    class Semantic(nn.Module):
        def forward(self, inputs):
            return [{"sem_seg": torch.zeros(2, *SIZE)}]

    with pytest.raises(UserError, match="no instances.*INSTANCE_ON"):
        FrameByFrame(Semantic(), num_classes=2, top_k=10)([drawn_video(1)])
