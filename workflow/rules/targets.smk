# Experiments by name: `snakemake --cores 2 prevalence` makes one experiment's tables and figures.
localrules:
    prevalence,
    swa,
    shift,
    sign,
    toy,
    theory,
    gain,


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


rule theory:
    input:
        experiment_files("theory"),


rule gain:
    input:
        experiment_files("gain"),


rule toy:
    input:
        experiment_files("toy"),
