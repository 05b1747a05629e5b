"""Where everything lives; the only place outside `cli/` that reads the environment.

`CORRIGIBLE_HOME` moves everything below one folder; without it the platform's own folders are used.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from store.files import private_folder

NAME = "corrigible"


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one installation.

    Files: `data` holds key.json and the generations of the store, `state` the anchor, locks and logs,
    `runtime` sockets, `config` is the settings file.
    """

    root: Path
    config: Path
    data: Path
    state: Path
    runtime: Path
    credentials: Path | None = None  # where systemd hands this service its credentials

    @classmethod
    def at(cls, root: Path, credentials: Path | None = None) -> "Home":
        """Everything below `root`."""
        return cls(root, root / "config.toml", root / "data", root / "state", root / "run", credentials)

    @classmethod
    def locate(cls, explicit: Path | None = None) -> "Home":
        """The home to use: `explicit`, else CORRIGIBLE_HOME, else the platform's folders."""
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        given = explicit or (Path(value) if (value := os.environ.get("CORRIGIBLE_HOME")) else None)
        folder = Path(credentials) if credentials else None
        return cls.at(given.expanduser().absolute(), folder) if given else cls._platform(folder)

    @classmethod
    def _platform(cls, credentials: Path | None) -> "Home":
        from platformdirs import PlatformDirs

        dirs = PlatformDirs(NAME, appauthor=False)
        with warnings.catch_warnings(action="ignore"):  # it warns where a session has no runtime folder of its own
            data, runtime = dirs.user_data_path, dirs.user_runtime_path
        return cls(data, dirs.user_config_path / "config.toml", data, dirs.user_state_path, runtime, credentials)

    def create(self) -> "Home":
        """Make the folders, mode 0700; a symbolic link in their place is refused.

        Raises:
            UsageError: a symbolic link or a file is in the way.
            CorrigibleError: the place cannot be written.
        """
        private_folder(self.root, tighten=False)  # may be a folder the owner has other things in
        for folder in (self.data, self.state, self.runtime):
            private_folder(folder)
        return self

    @property
    def key_file(self) -> Path:
        """key.json: the wrapped data key and which generation of the store it opens."""
        return self.data / "key.json"

    def insecure_key(self, entry: str) -> Path:
        """An unprotected wrapping key, present only when the owner asked for a key file."""
        return self.data / f"insecure-{entry}.key"

    def generation(self, number: int) -> Path:
        """Folder of one generation: the database and artefacts under one data key."""
        return self.data / f"store-{number}"

    def draft(self, number: int) -> Path:
        """Folder of a generation being built; worthless until key.json names its number."""
        return self.data / f"store-{number}.new"

    def anchor(self, number: int) -> Path:
        """The anchor of one generation."""
        return self.state / f"anchor-{number}"

    def lock(self, name: str) -> Path:
        """The lock file called `name`."""
        return self.state / f"{name}.lock"
