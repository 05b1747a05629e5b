"""The model files an owner has added: names, places, digests, and what a check of each found. Holds no weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from feedback.models import ModelFile
from store.errors import IntegrityError, UsageError
from store.files import private_folder, write_atomic


@dataclass(frozen=True, slots=True)
class Shelved:
    """One model: its name on the shelf, its file as it was when added, and the check's figures by name."""

    name: str
    path: str
    digest: str
    architecture: str
    checked: Mapping[str, float | int | bool] = field(default_factory=dict)


class Shelf:
    """The list, kept in one JSON file; names are unique.

    Raises:
        IntegrityError: the file cannot be read back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.models: dict[str, Shelved] = {}
        if path.is_file():
            try:
                entries = json.loads(path.read_text(encoding="utf-8"))
                self.models = {entry["name"]: Shelved(**entry) for entry in entries}
            except (ValueError, TypeError, KeyError):
                hint = f"Remove {path} and add them again."
                raise IntegrityError("The list of models is damaged.", hint=hint) from None

    def put(self, model: ModelFile, checked: Mapping[str, float | int | bool]) -> Shelved:
        """Add a checked model under its file's name, in place of the one of that name; write the list."""
        one = Shelved(model.path.stem, str(model.path), model.digest, model.architecture, dict(checked))
        self.models[one.name] = one
        private_folder(self._path.parent, tighten=False)
        write_atomic(self._path, [json.dumps([asdict(model) for model in self.models.values()], indent=1).encode()])
        return one

    def find(self, name: str) -> Shelved:
        """Return the model called `name`.

        Raises:
            UsageError: there is none (code ``model_unknown``).
        """
        if name not in self.models:
            hint = f"Known: {', '.join(self.models)}." if self.models else "Add one with `corrigible model add FILE`."
            raise UsageError("There is no model of that name.", hint=hint, code="model_unknown")
        return self.models[name]
