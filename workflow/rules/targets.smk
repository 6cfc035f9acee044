# Experiments by name: `snakemake --cores 2 prevalence` makes one experiment's tables and figures.
localrules:
    prevalence,
    swa,
    shift,
    sign,
    planes,
    toy,
    theory,


rule prevalence:
    input:
        experiment_files("prevalence"),


rule swa:
    input:
        experiment_files("swa"),


rule shift:
    input:
        experiment_files("shift"),


rule sign:
    input:
        experiment_files("sign"),


rule planes:
    input:
        experiment_files("planes"),


rule theory:
    input:
        experiment_files("theory"),


rule toy:
    input:
        experiment_files("toy"),
