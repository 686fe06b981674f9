"""Modules whose own state is saved as tensors, and loaded whole or not at all."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn, Tensor

from ._checkpoint import check_format, FORMAT, reading
from ._flat import flatten, read_number, STRUCTURE, unflatten
from ._kept import KeptTensors
from .errors import CheckpointError

OWN = "_dni"  # the first part of the names of entries that are not of parameters or buffers
_FORMAT = f"{OWN}.format"
_EARLIER = "_extra_state"  # where the state was saved before it became tensors

Load = Callable[[], None]


class LoadedWhole(nn.Module):
    """A module that ``load_state_dict`` loads whole or not at all."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Continue from a saved state, or raise and leave everything as it was.

        Args:
            state_dict: What ``state_dict()`` returned.
            strict: Whether all entries must be there, and no others. Without it, a state without
                any entry ``_dni.*`` loads as well; these are loaded all or none.
            assign: As in PyTorch, for parameters and buffers.

        Raises:
            CheckpointError: The state does not fit. Nothing has changed.
        """
        if not all(isinstance(key, str) for key in state_dict):
            raise CheckpointError(
                f"the checkpoint does not fit {self.saved_as()}: the names of its entries are texts"
            )
        saved = [module for module in self.modules() if isinstance(module, SavedModule)]
        loads: list[Load] = []
        for module in saved:
            module.defer_loads(loads)
        try:
            with _unchanged_on_error(self):
                found = super().load_state_dict(state_dict, strict, assign)
        except CheckpointError:
            raise
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint does not fit {self.saved_as()}: {error}{self.remedy(state_dict)}"
            ) from error
        finally:
            for module in saved:
                module.defer_loads(None)
        for load in loads:
            load()
        return found

    def saved_as(self) -> str:
        """Return what error messages call the module."""
        return f"this {type(self).__name__}"

    def remedy(self, state_dict: Mapping[str, Any]) -> str:
        """Return what an error message says to do about a state that does not fit."""
        return ""


class SavedModule(LoadedWhole):
    """A module that saves more than parameters and buffers, in tensors alone.

    ``state_dict()`` holds the module's own state after all other entries, in entries whose names
    begin with ``_dni.``. They are read and checked first, and then replace the module's state.
    """

    _loads: list[Load] | None = None  # takes the loads of a running load_state_dict

    @abstractmethod
    def saved_head(self) -> dict[str, bool | int | float]:
        """Return the numbers of the state that are there always, by name."""

    @abstractmethod
    def saved_tree(self) -> Any:
        """Return the rest of the state as plain data and tensors; None where there is none."""

    @abstractmethod
    def prepare_load(self, head: Mapping[str, Any], tree: Any) -> Load:
        """Read a saved state, and return a function that loads it; that cannot fail.

        Raises:
            CheckpointError: It does not fit.
        """

    @property
    def _dni(self) -> _Names:
        return _Names()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return all that is needed to go on as if never stopped: every value is a tensor."""
        destination = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        if not kwargs.get("keep_vars", args[2] if len(args) > 2 else False):
            _separate_tied(destination, prefix)
        own = self._own_entries([*destination.values()])
        destination.update({prefix + name: value for name, value in own.items()})
        return destination

    def _own_entries(self, beside: list[Any]) -> dict[str, Tensor]:
        try:
            head = flatten({"format": FORMAT, **self.saved_head()})
            del head[STRUCTURE]
            tree = self.saved_tree()
            rest = {} if tree is None else flatten(tree, beside)
        except TypeError as error:
            raise CheckpointError(
                f"the state of {type(self).__name__} cannot be saved: {error}. Synthesizers and "
                "their optimizer may keep tensors, numbers and texts, in dicts, lists and tuples"
            ) from error
        return {f"{OWN}.{name}": value for name, value in {**head, **rest}.items()}

    def defer_loads(self, loads: list[Load] | None) -> None:
        """Append loads to a list instead of running them; None runs them again at once."""
        self._loads = loads

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        start = f"{prefix}{OWN}."
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(start)}
        others = {k: v for k, v in state_dict.items() if not k.startswith(start)}
        if own:
            load = self._prepare(own)
            if self._loads is None:
                load()
            else:
                self._loads.append(load)
        elif f"{prefix}{_EARLIER}" in others:
            check_format(1)
        else:
            missing_keys.extend(prefix + name for name in self._own_entries([]))
        super()._load_from_state_dict(
            others, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _prepare(self, own: Mapping[str, Any]) -> Load:
        with reading("its list of entries"):
            check_format(read_number(own[_FORMAT], "int", _FORMAT))
            head = {
                name: read_number(own[f"{OWN}.{name}"], type(value).__name__, name)
                for name, value in self.saved_head().items()
                if f"{OWN}.{name}" in own
            }
            names = {_FORMAT, *(f"{OWN}.{name}" for name in head)}
            rest = {k.removeprefix(f"{OWN}."): v for k, v in own.items() if k not in names}
            tree = unflatten(rest) if rest else None
        return self.prepare_load(head, tree)


class _Names:
    """Stands for the entries that are no attributes.

    ``torch.distributed.checkpoint`` looks up the name of each entry as attributes of the module.
    """

    def __getattr__(self, name: str) -> _Names:
        if name.startswith("__") or name == "_fqn_modifiers":
            raise AttributeError(name)
        return self


def _separate_tied(entries: dict[str, Any], prefix: str) -> None:
    """Replace further entries of a tied parameter by copies: some tools refuse shared memory."""
    seen: set[tuple[torch.device, int]] = set()
    for name, value in entries.items():
        if name.startswith(prefix) and type(value) is Tensor and not value.is_meta:
            place = value.device, value.data_ptr()
            if value.layout is torch.strided and value.numel() and place in seen:
                entries[name] = value.clone()
            seen.add(place)


@contextmanager
def _unchanged_on_error(module: nn.Module) -> Iterator[None]:
    """Put parameters, buffers and extra states back where loading them fails.

    PyTorch loads what fits before it raises. The copies are on the CPU, so that a device needs no
    room for them.
    """
    kept = KeptTensors(on_cpu=True)
    extras: list[tuple[nn.Module, Any]] = []
    for child in module.modules():
        kept.keep_parameters(child)
        kept.keep_buffers(child)
        if type(child).get_extra_state is not nn.Module.get_extra_state:
            extras.append((child, copy.deepcopy(child.get_extra_state())))
    try:
        yield
    except BaseException:
        kept.restore()
        for child, extra in extras:
            child.set_extra_state(extra)
        raise
