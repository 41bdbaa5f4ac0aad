"""Hydra and OmegaConf as tests use them: what is composed of `conf/` is composed once, and yamls are parsed in C.

A test composes as a person does, several times a second where a person does it once.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest


@contextmanager
def composed_once() -> Iterator[None]:
    """What Hydra composes of `conf/` alone is the same for the same words: a copy is given of what it once composed.

    Of other words with the same choices of groups the yamls are merged once, and only the values are set anew; each
    yaml is read once; and the choices so far are listed where a yaml asks for one of them. Copies are pickled ones,
    which take a sixth of the time of deep ones.
    """
    from hydra._internal import config_loader_impl, defaults_list
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository, IConfigRepository
    from hydra._internal.defaults_list import DefaultsList, Overrides
    from hydra.core.default_element import InputDefault
    from hydra.core.override_parser.types import Override

    from flowexp.cli.composing import config_folder

    compose, composed = ConfigLoaderImpl.load_configuration, {}
    choose, chosen = config_loader_impl.create_defaults_list, {}
    merge, merged = ConfigLoaderImpl._compose_config_from_defaults_list, {}
    read, were_read = ConfigRepository.load_config, {}
    list_choices = defaults_list._create_interpolation_map

    def is_of_conf_alone(sources: IConfigRepository | ConfigLoaderImpl) -> bool:
        return [each.path for each in sources.get_sources() if each.scheme() == "file"] == [str(config_folder())]

    def copy_of(kept: dict[Any, bytes], key: object, make: Callable[[], Any]) -> Any:
        if key not in kept:
            kept[key] = pickle.dumps(make())
        return pickle.loads(kept[key])

    def load(
        self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *rest: object, **named: object
    ) -> object:
        words = (config_name, *overrides, *map(repr, (rest, named)))
        if not is_of_conf_alone(self) or any("searchpath" in word for word in overrides):
            return compose(self, config_name, overrides, *rest, **named)
        config = copy_of(composed, words, lambda: compose(self, config_name, overrides, *rest, **named))
        config.hydra.runtime.cwd = os.getcwd()
        return config

    def defaults(
        repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **how: bool
    ) -> DefaultsList:
        def of_words() -> DefaultsList:
            return choose(repo=repo, config_name=config_name, overrides_list=overrides_list, **how)

        if not is_of_conf_alone(repo):
            return of_words()
        given = Overrides(repo=repo, overrides_list=overrides_list)
        groups = (given.override_choices, given.append_group_defaults, given.deletions)
        choices = repr((config_name, groups, how))
        if choices not in chosen:
            chosen[choices] = of_words()
        return replace(chosen[choices], config_overrides=given.config_overrides)

    def config_of(self: ConfigLoaderImpl, defaults: list[object], repo: IConfigRepository) -> object:
        if not is_of_conf_alone(repo):
            return merge(self, defaults=defaults, repo=repo)
        return copy_of(merged, repr(defaults), lambda: merge(self, defaults=defaults, repo=repo))

    def content(self: ConfigRepository, config_path: str) -> object:
        if not is_of_conf_alone(self):
            return read(self, config_path)
        return copy_of(were_read, config_path, lambda: read(self, config_path))

    def choices_so_far(overrides: Overrides, listed: list[InputDefault], self_added: bool) -> object:
        asked = any(each.is_interpolation() for each in listed)
        return list_choices(overrides, listed, self_added) if asked else None

    def with_its_sources(self: ConfigRepository, memo: object) -> ConfigRepository:
        repository = object.__new__(ConfigRepository)
        repository.sources = self.sources  # another search path would be another list
        return repository

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, "load_configuration", load)
        patch.setattr(config_loader_impl, "create_defaults_list", defaults)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", config_of)
        patch.setattr(defaults_list, "_create_interpolation_map", choices_so_far)
        patch.setattr(ConfigRepository, "load_config", content)
        patch.setattr(ConfigRepository, "__deepcopy__", with_its_sources, raising=False)
        yield


@contextmanager
def yamls_read_by_libyaml() -> Iterator[None]:
    """OmegaConf's loader reads ten times as fast with the parser in C; what that refuses, its own refuses again."""
    import yaml
    from omegaconf._utils import get_yaml_loader

    load, own = yaml.load, get_yaml_loader()

    class Fast(yaml.cyaml.CParser, own):
        def __init__(self, stream: object) -> None:
            yaml.cyaml.CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    def read(stream: Any, Loader: type) -> object:
        if Loader.__name__ != own.__name__:
            return load(stream, Loader)
        try:
            return load(stream, Fast)
        except yaml.YAMLError:
            if not isinstance(stream, str):
                stream.seek(0)
            return load(stream, Loader)

    with pytest.MonkeyPatch.context() as patch:
        if yaml.__with_libyaml__:
            patch.setattr(yaml, "load", read)
        yield
