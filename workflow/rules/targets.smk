# Experiments by name: `snakemake --cores 2 prevalence` makes one experiment's tables and figures.
localrules:
    prevalence,
    swa,
    toy,


rule prevalence:
    input:
        experiment_files("prevalence"),


rule swa:
    input:
        experiment_files("swa"),


rule toy:
    input:
        experiment_files("toy"),
