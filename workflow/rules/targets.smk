# Experiments by name: `snakemake --cores 2 prevalence` makes one experiment's tables and figures.
localrules:
    prevalence,
    swa,
    basin,
    shift,
    sign,
    planes,
    toy,
    theory,
    gain,


rule prevalence:
    input:
        experiment_files("prevalence"),


rule swa:
    input:
        experiment_files("swa"),


rule basin:
    input:
        experiment_files("basin"),


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


rule gain:
    input:
        experiment_files("gain"),


rule toy:
    input:
        experiment_files("toy"),


# Each study is a target of its own name; a study "basin" is part of the one above.
for study in [name for name in experiment.studies if name != "basin"]:

    rule:
        name:
            study
        input:
            experiment_files(study),
        localrule: True
