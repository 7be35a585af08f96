from urllib import request

import pytest

from mask2former.checkpoint.zoo import zoo
from mask2former.utils.errors import UserError


def test_the_page_is_that_of_the_table(tool, repo_dir, capsys):
    assert tool("zoo").main(["page"]) == 0
    page = (repo_dir / "MODEL_ZOO.md").read_text()
    assert page == capsys.readouterr().out, "run: python tools/zoo.py page > MODEL_ZOO.md"
    assert all(f"| `{model.name}` |" in page and f"]({model.address})" in page for model in zoo().values())


def test_list_shows_all_or_what_has_every_word(tool, capsys):
    main = tool("zoo").main
    main(["list"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(zoo())
    main(["list", "Panoptic", "dinat"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {f"{d}/panoptic/DiNAT-L" for d in ("coco", "ade20k", "cityscapes")}
    assert "PQ 58.2, AP 49.2, mIoU 68.1" in lines[0]
    with pytest.raises(UserError, match="No model of the zoo has all of panoptic, vgg"):
        main(["list", "panoptic", "vgg"])


def test_show_tells_what_is_known(tool, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    tool("zoo").main(["show", "zoo://ade20k/semantic/Swin-T"])
    out = capsys.readouterr().out
    model = zoo()["ade20k/semantic/Swin-T"]
    for told in (model.recipe, model.address, "5274a6", "mIoU 47.7", f"{model.cached} (not there yet)"):
        assert told in out
    with pytest.raises(UserError, match="Near ones: ade20k/semantic/Swin-T.*Correct NAME"):
        tool("zoo").main(["show", "ade20k/semantic/Swin-Tiny"])


def test_download_prints_the_path_of_the_file(tool, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    model = zoo()["coco/panoptic/DiNAT-L"]  # no hash in its name
    model.cached.parent.mkdir(parents=True)
    model.cached.write_bytes(b"weights")
    assert tool("zoo").main(["download", model.name]) == 0
    assert capsys.readouterr().out.strip() == str(model.cached)
    with pytest.raises(UserError, match="Correct NAME"):
        tool("zoo").main(["download", "coco/panoptic/DiNAT-XL"])


def test_download_offline_names_its_own_argument(tool, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(request, "urlretrieve", no_network)
    with pytest.raises(UserError, match="no route to host.*where NAME finds it") as error:
        tool("zoo").main(["download", "coco/panoptic/R50"])
    assert "MODEL.WEIGHTS" not in str(error.value)
