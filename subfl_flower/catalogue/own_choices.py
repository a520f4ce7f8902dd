"""The user's choices, as Hydra finds them."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from subfl_flower.code_folder import adopted


class OwnChoices(SearchPathPlugin):
    """Plugin that appends the folder ``conf`` of the user's folder to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder where there is one."""
        own = adopted()
        if own is not None and (own / "conf").is_dir():
            search_path.append(provider="the user's folder", path=f"file://{own / 'conf'}")


def offer_own_choices() -> None:
    """Let Hydra find the choices of the user's folder, in this process."""
    Plugins.instance().register(OwnChoices)
