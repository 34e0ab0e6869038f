"""Lists and dictionaries of modules; calling them is left to the module that holds them."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView

from nnlite.errors import ConfigError
from nnlite.nn.module import Module


def _checked(container: str, name: str, module: Module) -> Module:
    if not isinstance(module, Module):
        raise ConfigError(f"{container}: {name}={module!r} must be a Module")
    if "." in name or hasattr(Module, name):
        raise ConfigError(f"{container}: {name!r} cannot name a module; choose another name")
    return module


class ModuleList(Module):
    """Modules named "0", "1", ...; a list otherwise. Source: torch.nn.ModuleList."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def _replace(self, modules: list[Module]) -> None:
        for name in [name for name, _ in self.named_children()]:
            delattr(self, name)
        for i, module in enumerate(modules):
            setattr(self, str(i), _checked("ModuleList", str(i), module))

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        setattr(self, str(len(self)), _checked("ModuleList", str(len(self)), module))
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Put a module before the one at ``index``."""
        listed = list(self)
        listed.insert(index, module)
        self._replace(listed)

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]

    def __setitem__(self, index: int, module: Module) -> None:
        listed = list(self)
        listed[index] = module
        self._replace(listed)

    def __delitem__(self, index: int) -> None:
        listed = list(self)
        del listed[index]
        self._replace(listed)

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()


class ModuleDict(Module):
    """Modules by name. Source: torch.nn.ModuleDict."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add modules, or replace those of the same name."""
        for name, module in modules.items():
            self[name] = module

    def _named(self) -> dict[str, Module]:
        return dict(self.named_children())

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._named().keys()

    def values(self) -> ValuesView[Module]:
        """The modules."""
        return self._named().values()

    def items(self) -> ItemsView[str, Module]:
        """Names and modules."""
        return self._named().items()

    def pop(self, name: str) -> Module:
        """Take a module out."""
        module = self[name]
        del self[name]
        return module

    def __getitem__(self, name: str) -> Module:
        return self._named()[name]

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(name, str) or hasattr(ModuleDict, name):
            raise ConfigError(f"ModuleDict: {name!r} cannot name a module; choose another name")
        setattr(self, name, _checked("ModuleDict", name, module))

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._named()

    def __len__(self) -> int:
        return len(self._named())

    def __iter__(self) -> Iterator[str]:
        return iter(self._named())
