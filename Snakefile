# Asymmetric valleys: train, average, probe, detect, report. The config says what; each rule file is a stage.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/library.smk"


# A config file given on the command line replaces the default whole: the two are not merged.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


# Where jobs run with --sdm apptainer; docs/how-to/cluster.md says how it is made. Without, nobody looks for it.
container: "valleys.sif"


# The first page of Snakemake's own report.
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/run.smk"
include: "workflow/rules/inputs.smk"


if experiment.looks:

    include: "workflow/rules/looks.smk"


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/toy.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/targets.smk"


onstart:
    claim_files()
    internals.lift_rate_limit()
    write_rulegraph()
    start_fork_server()


onsuccess:
    run.succeeded()
    tell_verdicts()


localrules:
    all,
    data,


rule all:
    default_target: True
    input:
        f"{ROOT}/report.html",
        all_tables(),
        all_figures(),
        panels_of(outputs.figures(experiment)),
        # All that is made of the first seeds whatever is decided: else what no claim is judged from would wait.
        parts_at(experiment.looks.counts[0]) if experiment.looks else [],
    message:
        f"{ROOT} has its report, tables and figures"


# The data sets alone, for a machine with a network; `make data` also fetches what it can.
rule data:
    input:
        all_data(),
