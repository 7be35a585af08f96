import sys

import pytest

from mask2former.utils.errors import UserError
from mask2former.utils.imports import import_user_modules


def error_of(names, relative_to=None) -> str:
    with pytest.raises(UserError) as caught:
        import_user_modules(names, relative_to)
    return str(caught.value)


def test_files_are_imported_once_whatever_the_spelling(tmp_path, monkeypatch):
    (tmp_path / "once.py").write_text("import sys\nsys.test_imports_runs = getattr(sys, 'test_imports_runs', 0) + 1\n")
    monkeypatch.setattr(sys, "test_imports_runs", 0, raising=False)
    monkeypatch.chdir(tmp_path)
    import_user_modules(["once.py", str(tmp_path / "once.py"), "./once.py"])
    assert sys.test_imports_runs == 1


def test_the_folder_of_the_recipe_comes_before_the_current_one(tmp_path, monkeypatch):
    for folder in ("recipe", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"import sys\nsys.test_imports_from = {folder!r}\n")
    monkeypatch.setattr(sys, "test_imports_from", None, raising=False)
    monkeypatch.chdir(tmp_path / "here")
    import_user_modules(["mine.py"], tmp_path / "recipe")
    assert sys.test_imports_from == "recipe"
    import_user_modules(["mine.py"])
    assert sys.test_imports_from == "here"


def test_module_names(tmp_path, monkeypatch):
    (tmp_path / "user_module_for_test.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_user_modules(["user_module_for_test"])
    assert sys.modules.pop("user_module_for_test").VALUE == 1


def test_entries_that_are_not_found_are_named(tmp_path):
    message = error_of(["gone.py"], tmp_path)
    assert "gone.py" in message and str(tmp_path) in message
    assert "'no_such_package_x.data'" in error_of(["no_such_package_x.data"])
    assert "'a b'" in error_of(["a b"])
    assert "'5'" in error_of([5])


@pytest.mark.parametrize(
    "text, words",
    [
        ("x = 1\ny = x.z\n", ("AttributeError", "line 2")),
        ("x = (\n", ("SyntaxError", "line 1")),
        ("\nimport no_such_package_x\n", ("ModuleNotFoundError", "no_such_package_x", "line 2")),
    ],
)
def test_errors_inside_user_code_tell_the_place(tmp_path, text, words):
    (tmp_path / "broken.py").write_text(text)
    message = error_of(["broken.py"], tmp_path)
    assert all(word in message for word in ("'broken.py'", *words))
    assert not [name for name in sys.modules if name.startswith("broken_")]


def test_a_missing_package_inside_a_named_module_is_not_taken_for_the_module(tmp_path, monkeypatch):
    (tmp_path / "user_module_needs.py").write_text("import no_such_package_x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "failed with ModuleNotFoundError" in error_of(["user_module_needs"])
