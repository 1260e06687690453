"""Kinds of priors by name: how a name is taken apart, and plugins that fail."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from scene4d.errors import DataError, UsageError
from scene4d.priors import kinds
from scene4d.priors.kinds import PriorName, kind_names, load_prior, prior_name


def test_names_are_taken_apart(tmp_path):
    assert {"ffdnet", "patches"} <= set(kind_names())
    assert prior_name("patches") == PriorName(kind="patches", place=None)
    assert prior_name("patches:a b") == PriorName(kind="patches", place=Path("a b"))
    assert prior_name("some/folder") == PriorName(kind=None, place=Path("some/folder"))
    assert prior_name(r"C:\folder").kind is None  # a drive is no kind
    strange = tmp_path / "with:colon"
    strange.mkdir()
    assert prior_name(str(strange)) == PriorName(kind=None, place=strange)
    for text in ("patches", "patches:x", "some/folder"):
        assert str(prior_name(text)) == text
    with pytest.raises(UsageError, match="no kind of prior 'sdturbo'"):
        prior_name("sdturbo:folder")
    with pytest.raises(UsageError, match="names nothing"):
        prior_name("  ")


def test_a_plugin_that_fails_is_named_and_the_others_are_asked(monkeypatch, tmp_path, caplog):
    broken = EntryPoint("broken", "no_such_module:Kind", kinds.GROUP)
    found = [broken, *kinds.entry_points(group=kinds.GROUP)]
    monkeypatch.setattr(kinds, "entry_points", lambda group: found)
    with pytest.raises(UsageError, match="'broken'.*cannot be imported"):
        load_prior(PriorName(kind="broken", place=tmp_path), None)
    with pytest.raises(DataError, match="is no prior of any kind"):
        load_prior(PriorName(kind=None, place=tmp_path), None)
    assert "broken" in caplog.text
    no_kind = EntryPoint("other", "json:JSONDecoder", kinds.GROUP)
    monkeypatch.setattr(kinds, "entry_points", lambda group: [no_kind])
    with pytest.raises(UsageError, match="is not a PriorKind"):
        load_prior(PriorName(kind="other", place=None), None)
