"""Write the self-contained HTML report. In: ``tables``, ``figures`` (PNG and SVG). Out: the report."""

from valleys.jobs import job

with job(snakemake) as log:
    from pathlib import Path

    from valleys import files, report, tables

    kinds = {Path(path).stem: tables.name_in(path) for path in snakemake.input.tables}
    data = {
        Path(path).stem: tables.read(path, kinds[Path(path).stem]).to_pandas()
        for path in snakemake.input.tables
    }
    pictures = {Path(p).stem: files.read_svg(p) for p in snakemake.input.figures if p.endswith(".svg")}
    page = report.render(data, pictures, snakemake.params.config, tables.versions(), kinds)
    files.write_text(snakemake.output[0], page)
    log.info("%s: %d figures, %d tables", snakemake.output[0], len(pictures), len(data))
