# The checked experiment, what its jobs cost, and the names that its files are made of.
from valleys import factories
from valleys.config import alignment, captions, originals, outputs
from valleys.config.catalogue import CELL_TABLES, LINES, SOLUTIONS, TARGETS
from valleys.config.experiment import Cell, Experiment
from valleys.config.params import Params
from valleys.costs import layers
from valleys.costs.jobs import Costs
from valleys.landscape.kinds import KINDS

try:
    schema.check_files(workflow.configfiles)
    factories.look_beside(workflow.configfiles)
    schema.check(config)
    experiment = Experiment(schema.with_defaults(config))
    schema.check_writable(experiment.root)
except ValleysError as error:
    raise WorkflowError(str(error))

params_of = Params(experiment)
# Requests for runtime and memory follow what a job has to do. They are no params: changing them reruns nothing.
costs = Costs(experiment, originals=internals.is_main_process())
if internals.is_main_process():
    try:
        layers.check(costs)
    except ValleysError as error:
        raise WorkflowError(str(error))
ROOT = experiment.root
CELL = f"{ROOT}/cells/{{dataset}}/{{model}}/{{recipe}}/seed-{{seed}}"
LOGS = f"{ROOT}/logs/{{dataset}}/{{model}}/{{recipe}}/seed-{{seed}}"
BENCHMARKS = f"{ROOT}/benchmarks/{{dataset}}/{{model}}/{{recipe}}/seed-{{seed}}"


def any_of(names):
    """A pattern that matches these names, and nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def none_of(names):
    """A pattern of one word in a path that is none of these names."""
    return rf"(?!(?:{any_of(names)})/)[^/]+"


wildcard_constraints:
    dataset=r"[^/]+",
    model=r"[^/]+",
    recipe=r"[^/]+",
    seed=r"\d+",
    solution=any_of([*SOLUTIONS, *experiment.own_names]),
    probe=r"[^/]+",
    bundle=r"[^/]+",
    study="|".join(experiment.studies) or "none",
    line=r"[^/]+",
    plane=r"[^/]+",
    table=r"[a-z0-9_]+",
    figure=r"[A-Za-z0-9_.-]+",
