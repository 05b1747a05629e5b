"""Our five top-level packages have generic names: they must be ours alone in this environment."""

from importlib.metadata import entry_points, packages_distributions

import pytest

PACKAGES = ["store", "feedback", "learner", "federation", "cli"]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_name_is_provided_by_our_distribution_alone(package: str) -> None:
    """No dependency installs a top-level package of the same name."""
    owners = set(packages_distributions().get(package, ["corrigible"]))  # an editable install may list none
    assert owners == {"corrigible"}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_imported_from_this_checkout(package: str) -> None:
    """What the tests import is the code beside them, not a stale copy in site-packages."""
    from importlib import import_module
    from pathlib import Path

    folder = Path(str(import_module(package).__file__)).parent
    assert folder == Path(__file__).parents[1] / package


def test_the_command_is_installed() -> None:
    """The distribution provides the `corrigible` command."""
    (script,) = entry_points(group="console_scripts", name="corrigible")
    assert script.value == "cli.main:main"
