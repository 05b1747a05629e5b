"""Settings: precedence, types, and refusal of what is not known."""

from pathlib import Path

import pytest

from cli.config import Config, load, set_model
from cli.session import Session
from store.errors import UsageError


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    """A fresh device needs no settings."""
    assert load(tmp_path / "config.toml", {}) == Config()


def test_the_environment_lies_over_the_file(tmp_path: Path) -> None:
    """Environment beats file beats default, setting by setting."""
    path = tmp_path / "config.toml"
    path.write_text("[model]\npath = '~/a.gguf'\nthreads = 3\n[privacy]\nepsilon_cap = 2\n")
    config = load(path, {"CORRIGIBLE_MODEL__THREADS": "4", "CORRIGIBLE_HOME": "/x", "PATH": "/bin"})
    assert config.model.path == Path("~/a.gguf").expanduser()
    assert config.model.threads == 4
    assert config.privacy.epsilon_cap == 2.0
    assert config.chat == Config().chat


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[modle]\n", "'modle'"),
        ("[model]\npaht = 'x'\n", "'paht'"),
        ("model = 3\n", "outside a section"),
        ("[model]\nthreads = 'many'\n", "model.threads must be a whole number"),
        ("[model]\nthreads = 1.5\n", "model.threads"),
        ("[model]\nthreads = -1\n", "model.threads"),
        ("[model]\nthreads = true\n", "model.threads"),
        ("[privacy]\ndelta = nan\n", "privacy.delta must be a number"),
        ("[chat]\nturns = []\n", "chat.turns"),
        ("[model\n", "not valid TOML"),
    ],
)
def test_what_is_not_a_setting_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    """A typing error never silently means the default."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(path, {})
    assert caught.value.code == "config"
    assert says in caught.value.message


def test_the_nearest_setting_is_offered(tmp_path: Path) -> None:
    """The hint names what was probably meant."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "none", {"CORRIGIBLE_MODEL__TREADS": "1"})
    assert "'threads'" in caught.value.hint


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    """Any path survives the round trip."""
    path, model = tmp_path / "a" / "config.toml", Path('/x/ä "quoted" \\ 😀.gguf')
    set_model(path, model)
    assert load(path, {}).model.path == model
    assert path.stat().st_mode & 0o077 == 0


def test_retention_is_kept_per_kind_and_never_below_a_day(tmp_path: Path) -> None:
    """Days from the file become the store's policy; 0 is a slip and not a wish to keep nothing."""
    path = tmp_path / "config.toml"
    path.write_text("[retention]\ninteractions = 30\nratings = 7.5\n")
    policy = load(path, {}).retention.policy()
    assert (policy.interactions, policy.corrections, policy.ratings) == (30, None, 7.5)
    assert not Config().retention.policy().limited
    with pytest.raises(UsageError) as caught:
        load(path, {"CORRIGIBLE_RETENTION__CORRECTIONS": "0"}).retention.policy()
    assert caught.value.code == "config"


def test_the_settings_in_the_readme_are_read(tmp_path: Path) -> None:
    """Somebody copies them: every section and key is known, and none is left at what it was."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = readme[readme.index("    [model]") : readme.index("Secrets are never settings")].splitlines()
    file = tmp_path / "config.toml"
    file.write_text("\n".join(line.removeprefix("    ") for line in lines))
    config = load(file, {})
    assert config.retention.interactions == 365
    assert str(config.model.path) == "/models/qwen3-0.6b.gguf"


@pytest.mark.parametrize("protect", [True, False])
def test_the_owners_word_on_the_models_skills_is_in_the_sessions_policy(tmp_path: Path, protect: bool) -> None:
    """`learn`, `forget` and the page's runs take theirs from there."""
    (tmp_path / "config.toml").write_text(f"[learner]\nprotect_base = {str(protect).lower()}\n")
    assert Session(place=tmp_path).learn_policy().protect_base is protect
