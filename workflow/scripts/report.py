"""Write the self-contained HTML report. In: ``tables``, ``figures`` (PNG and SVG). Out: the report."""

from valleys.jobs import job

with job(snakemake) as log:
    from pathlib import Path

    from valleys import files, report, rulegraph, tables

    kinds = {Path(path).stem: tables.name_in(path) for path in snakemake.input.tables}
    data = {
        Path(path).stem: tables.read(path, kinds[Path(path).stem], fill=False).to_pandas()
        for path in snakemake.input.tables
    }
    pictures = {Path(p).stem: files.read_svg(p) for p in snakemake.input.figures if p.endswith(".svg")}
    parquet = {Path(path).stem: Path(path).read_bytes() for path in snakemake.input.tables}
    # Written when the run began (common.smk): no input, as it tells of the jobs and not of their results.
    graph = rulegraph.read(Path(snakemake.output[0]).with_name(rulegraph.FILE))
    page = report.render(
        data, pictures, snakemake.params.config, tables.versions(), kinds, parquet=parquet, graph=graph
    )
    files.write_text(snakemake.output[0], page)
    size = len(page.encode("utf-8")) / 1e6
    log.info("%s: %d figures, %d tables, %.1f MB", snakemake.output[0], len(pictures), len(data), size)
