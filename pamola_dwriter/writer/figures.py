"""Writing figures."""

from __future__ import annotations

from typing import Any

from pamola_dwriter import figures
from pamola_dwriter.artifacts import put_artifact
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.writer.base import PARAMETERS, WriterBase


class FigureWrites(WriterBase):
    """Writes figures of any library, from this process."""

    def write_visualization(  # noqa: PLR0913 - the specified signature
        self,
        figure: Any,
        name: str,
        subdir: str | None = None,
        timestamp_in_name: bool = False,
        format: str = "png",  # noqa: A002 - the specified name
        encryption_key: Any = None,
        overwrite: bool = True,
        **kwargs: Any,
    ) -> WriterResult:
        """Draw a figure off-screen and write it, atomically.

        Parameters
        ----------
        figure : object
            Of Matplotlib (a figure or axes), Bokeh, Plotly, Altair or Pillow, or anything with
            ``savefig`` or ``save``. One that pyplot manages is closed once it is written; the
            object can be written again, in another format for instance.
        name : str
            Base name of the file; it gets the extension of its format.
        subdir : str, optional
            Folder below the task directory; default the task directory itself.
        timestamp_in_name : bool, default False
            Append ``_YYYYMMDD_HHMMSS`` in UTC; with microseconds if that is taken.
        format : str, default "png"
            ``png``, ``svg``, ``pdf``, ``html`` or ``jpg``, as far as the library has it.
        encryption_key : optional
            As in :meth:`write_dataframe`.
        overwrite : bool, default True
            Replace what stands there.

        Raises
        ------
        UnsupportedDataError
            It is no figure, or its library cannot draw that format; says what can.
        WriteFailedError
            The library failed to draw it; the cause is chained.
        InvalidWriteError, TargetExistsError, TargetUnavailableError, EncryptionKeyError
            As :meth:`write_dataframe`.
        """
        with self._reporting("save visualization"), self._step(f"Writing {name}"):
            parameters = PARAMETERS | {"figure", "subdir", "format"}
            self._take("write_visualization", kwargs, parameters, encryption_key)
            chosen = figures.check_format(format)
            providers = self._key(encryption_key)
            flags = {"timestamp_in_name": timestamp_in_name, "overwrite": overwrite}
            wanted = self._wanted(name, subdir, chosen, providers, **flags)
            drawn = figures.render(figure, chosen)
            result = put_artifact(self._place, wanted, drawn, providers, format_name=chosen)
            figures.close(figure)  # not before: a write that failed can be repeated
            return result
