"""The space and the study of a search."""

from dataclasses import replace

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cxrnet.errors import CxrnetError
from cxrnet.workflows.study import SearchSettings, make_sampler, one_a_key, open_study, read_space, word_of

SETTINGS = SearchSettings(n_trials=10, n_jobs=1, sampler="tpe", seed=0, pruner="none", storage=None, study_name=None)


def space_of(*words):
    return read_space(one_a_key(OverridesParser.create().parse_overrides([*words])))


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("interval(0,6)", FloatDistribution(0, 6)),
        ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("int(interval(1,9))", IntDistribution(1, 9)),
        ("tag(log,int(interval(1,9)))", IntDistribution(1, 9, log=True)),
        ("range(1,4)", IntDistribution(1, 3)),
        ("range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("choice(adam,sgd)", CategoricalDistribution(["adam", "sgd"])),
        ("0.1,0.2", CategoricalDistribution(["0.1", "0.2"])),
        ("choice([],[64,32],{last: 3})", CategoricalDistribution(["[]", "[64,32]", "{last:3}"])),
    ],
)
def test_a_space_is_read_as_hydra_writes_it(text, distribution):
    assert space_of(f"x={text}", "y=1") == {"x": distribution}


def test_the_later_of_two_words_with_one_key_counts():
    assert space_of("x=interval(0,1)", "y=1,2", "x=3").keys() == {"y"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x=3"], "nothing to search; give a key several"),
        (["x=choice(3)"], r"nothing to search, x=choice\(3\) has one value"),
        (["x=tag(log,interval(0,1))"], "no space to search: .*log"),
        (["x=range(3,3)"], "no space to search: it has no values"),
    ],
)
def test_what_is_no_space_is_refused(words, said):
    with pytest.raises(CxrnetError, match=said):
        space_of(*words)


def test_a_grid_of_an_interval_is_refused():
    with pytest.raises(CxrnetError, match=r"sampler: grid, but x is an interval; give it values"):
        make_sampler(replace(SETTINGS, sampler="grid"), space_of("x=interval(0,1)"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampler": "cmaes"}, "hydra.sweeper.sampler: cmaes.*tpe, random, grid"),
        ({"pruner": "percentile"}, "hydra.sweeper.pruner: percentile.*none, median, hyperband"),
        ({"n_trials": 0}, "hydra.sweeper.n_trials: 0"),
        ({"n_jobs": 0}, "hydra.sweeper.n_jobs: 0"),
        ({"storage": "sqlite:///x.db"}, "study_name: none"),
    ],
)
def test_settings_are_checked(change, said):
    with pytest.raises(CxrnetError, match=said):
        replace(SETTINGS, **change)


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_study_that_is_opened_again_goes_on_with_the_trials_it_would_have_had(tmp_path, sampler):
    settings, space = replace(SETTINGS, sampler=sampler), space_of("x=range(0,40)", "y=1,2,3")

    def ask(folder, times):
        study = open_study(settings, folder, "minimize", {})
        study.sampler = make_sampler(settings, space)
        for _ in range(times):
            trial = study.ask(space)
            study.tell(trial, trial.params["x"])
        return [trial.params for trial in study.trials]

    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    ask(tmp_path / "twice", 9)
    both = ask(tmp_path / "twice", 9)
    assert both == ask(tmp_path / "once", 18)
    assert both[0] != both[9]


def test_a_study_of_another_space_is_refused(tmp_path):
    settings = replace(SETTINGS, storage=str(tmp_path / "shared"), study_name="heads")
    open_study(settings, tmp_path, "minimize", {"space": {"x": "interval(0,1)"}})
    with pytest.raises(CxrnetError, match=r"'heads' in .* of another search, with space x=interval\(0,1\), not x=1,2"):
        open_study(settings, tmp_path, "minimize", {"space": {"x": "1,2"}})


def test_a_storage_that_cannot_be_used_is_told_without_its_password(tmp_path):
    settings = replace(SETTINGS, storage="postgresql://me:secret@127.0.0.1:1/db", study_name="heads")
    with pytest.raises(CxrnetError, match=r"storage: 'postgresql://127.0.0.1:1/db' can't be used") as refused:
        open_study(settings, tmp_path, "minimize", {})
    assert "secret" not in str(refused.value)


def test_a_value_that_the_space_lacks_is_not_run(tmp_path):
    """A storage may be anyone's: what stands in it becomes a word of a command line."""
    space = space_of("x=1,2", "y=interval(0,1)")
    assert word_of("x", space["x"], "2") == "x=2"
    assert word_of("y", space["y"], 1e-7) == "y=1e-07"
    for key, value in (("x", "3 +callbacks.a._target_=os.abort"), ("y", "0 z=1"), ("y", 7.0)):
        with pytest.raises(CxrnetError, match="which the space lacks"):
            word_of(key, space[key], value)


def test_without_optuna_one_line_says_what_to_install(monkeypatch):
    import sys

    from cxrnet.workflows.study import check_installed

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CxrnetError, match=r"pip install 'cxrnet\[search\]'"):
        check_installed()
    assert optuna.__version__
