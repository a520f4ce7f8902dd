"""Base of the settings of all data sets, of graphs and of ratings."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.data.raw_files import present_or_downloaded
from subfl_flower.doors import DoorSettings


class Protocol(BaseModel):
    """Training length of the paper on a data set; it does not affect the data.

    Attributes:
        rounds: communication rounds.
        local_epochs: epochs that each client trains in a round.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)


class SourceSettings(DoorSettings):
    """Settings of a data set of any kind.

    Attributes:
        public: True for a published data set, whose files are the same for everyone.
        disturbable: True where clients' data can be disturbed (the section ``disturbance``).
    """

    public: ClassVar[bool] = False
    disturbable: ClassVar[bool] = False

    def files(self, root: Path) -> list[Path]:
        """The files on disk that determine the data, public ones downloaded where absent; none where it is computed.

        Args:
            root: the data root; public benchmarks are searched below it and downloaded into it.

        Raises:
            SubflError: a file is missing and cannot be downloaded.
        """
        return []

    def for_site(self) -> Self:
        """Settings for a site that makes a folder from its data alone; by default the same settings.

        Raises:
            SubflError: these settings do not allow it.
        """
        return self

    def require_common_classes(self) -> None:
        """Refuse settings by which two sites could number their classes differently; by default all are accepted.

        Raises:
            SubflError: the classes are numbered as a site finds them.
        """


class PublicSettings(SourceSettings):
    """Settings of a public data set, whose files are downloaded where they are absent."""

    public = True

    @abstractmethod
    def raw_files(self, root: Path) -> tuple[Path, list[str]]:
        """The folder of the raw files below the data root, and their names."""

    @abstractmethod
    def download(self, folder: Path) -> Path:
        """Download into an empty folder; return the folder that then holds the raw files."""

    def files(self, root: Path) -> list[Path]:
        """The raw files, downloaded where absent.

        Raises:
            SubflError: one is missing and cannot be downloaded.
        """
        return present_or_downloaded(*self.raw_files(root), self.download, self.name)
