import pickle

import numpy as np
import pytest

from mask2former.data.packed import PackedRecords


def test_unpacked_records_are_the_packed_ones():
    records = [{"file_name": f"{i}.jpg", "annotations": [{"bbox": [i, 0.5]}] * i} for i in range(20)]
    packed = PackedRecords(records)
    assert len(packed) == 20 and list(packed) == records
    assert packed[-1] == records[-1] and packed[3] is not packed[3]
    with pytest.raises(IndexError):
        packed[20]
    assert list(PackedRecords(packed)) == records
    assert list(pickle.loads(pickle.dumps(packed))) == records
    assert list(PackedRecords([])) == []


def test_arrays_are_packed_too():
    mask = np.eye(4, dtype=bool)
    assert np.array_equal(PackedRecords([{"segmentation": mask}])[0]["segmentation"], mask)
