# The library, and what is looked at before Snakemake reads a config file of this folder.
import gc
import sys
from pathlib import Path

SCRIPTS = (Path(str(workflow.current_basedir)) / "../scripts").resolve()
sys.path.insert(0, str(SCRIPTS))

# A graph is made of millions of objects that all stay: with Python's own 700 it spends a sixth of the time on
# looking for garbage among them.
gc.set_threshold(10_000)

from snakemake.exceptions import WorkflowError
from valleys.config import reading, schema
from valleys.errors import ValleysError
from valleys.execution.snakemake_internals import Internals

internals = Internals(workflow, logger.warning)

# Files of --configfile have been read by now, and looked at before that if profiles/default was loaded. Part of
# another workflow, this one reads none.
if not internals.is_module():
    try:
        for path in workflow.overwrite_configfiles:
            schema.check_plain(path)
        if not workflow.overwrite_configfiles:
            reading.load("config.yaml")
    except ValleysError as error:
        raise WorkflowError(str(error))
